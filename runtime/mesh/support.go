package mesh

import (
	"fmt"

	"github.com/Masterminds/semver/v3"
)

// Mode is how a control plane is upgraded.
type Mode string

// The modes. In place goes one minor at a time; by revision may jump two
// (https://istio.io/latest/docs/setup/upgrade/).
const (
	InPlace    Mode = "in place"
	ByRevision Mode = "by revision"
)

// CheckPath says what is wrong with upgrading from one Istio version to
// another; nil if nothing is. Downgrades are refused: the way back is a rollback.
func CheckPath(from, to *semver.Version, mode Mode) error {
	span := uint64(1)
	if mode == ByRevision {
		span = 2
	}
	switch {
	case from.Major() != to.Major():
		return fmt.Errorf("istio %s -> %s: another major version: no upgrade path is known", from, to)
	case to.LessThan(from):
		return fmt.Errorf("istio %s -> %s: a downgrade: to go back, roll the run back that upgraded", from, to)
	case to.Minor()-from.Minor() > span:
		return fmt.Errorf("istio %s -> %s: %d minor versions at once, at most %d %s: go to %d.%d first",
			from, to, to.Minor()-from.Minor(), span, mode, from.Major(), from.Minor()+span)
	}
	return nil
}

// CheckSkew says what is wrong with a proxy of one version under a control
// plane of another: the data plane is never ahead by a minor, and a control
// plane at most two (one is what in-place upgrades keep to).
func CheckSkew(control, data *semver.Version, mode Mode) error {
	span := uint64(1)
	if mode == ByRevision {
		span = 2
	}
	switch {
	case control.Major() != data.Major():
		return fmt.Errorf("control plane %s, data plane %s: another major version", control, data)
	case data.Minor() > control.Minor():
		return fmt.Errorf("control plane %s, data plane %s: the data plane is ahead", control, data)
	case control.Minor()-data.Minor() > span:
		return fmt.Errorf("control plane %s, data plane %s: %d minor versions behind, at most %d", control, data, control.Minor()-data.Minor(), span)
	}
	return nil
}

// KubernetesRange is the range of Kubernetes 1.x minor versions, both ends included.
type KubernetesRange struct{ Min, Max int }

// Contains reports whether 1.minor is in the range.
func (r KubernetesRange) Contains(minor int) bool { return minor >= r.Min && minor <= r.Max }

// String is "1.32–1.36".
func (r KubernetesRange) String() string { return fmt.Sprintf("1.%d–1.%d", r.Min, r.Max) }

// SupportedKubernetes is the range that an Istio minor was tested with
// (https://istio.io/latest/docs/releases/supported-releases/); ok is false for
// versions that this table does not know.
func SupportedKubernetes(istio *semver.Version) (r KubernetesRange, ok bool) {
	if istio.Major() != 1 {
		return KubernetesRange{}, false
	}
	switch istio.Minor() {
	case 20:
		return KubernetesRange{25, 29}, true
	case 21:
		return KubernetesRange{26, 29}, true
	case 22, 23:
		return KubernetesRange{27, 30}, true
	case 24:
		return KubernetesRange{28, 31}, true
	case 25:
		return KubernetesRange{29, 32}, true
	case 26, 27:
		return KubernetesRange{29, 33}, true
	case 28:
		return KubernetesRange{30, 34}, true
	case 29:
		return KubernetesRange{31, 35}, true
	case 30, 31:
		return KubernetesRange{32, 36}, true
	}
	return KubernetesRange{}, false
}
