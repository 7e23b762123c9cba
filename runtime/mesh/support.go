package mesh

import (
	"fmt"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/knowledge"
)

// Mode is how a control plane is upgraded.
type Mode string

// The modes. In place goes one minor at a time; by revision may jump two
// (https://istio.io/latest/docs/setup/upgrade/); knowledge.Skew has the numbers.
const (
	InPlace    Mode = "in place"
	ByRevision Mode = "by revision"
)

// span is how many minor versions may lie between two parts.
func (m Mode) span(rules knowledge.Skew) uint64 {
	if m == ByRevision {
		return rules.ByRevision
	}
	return rules.InPlace
}

// CheckPath says what is wrong with upgrading from one Istio version to
// another by the rules that are known; nil if nothing is. Downgrades are
// refused: the way back is a rollback.
func CheckPath(k *knowledge.Base, from, to *semver.Version, mode Mode) error {
	span := mode.span(k.Skew())
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
// plane at most as far as its own upgrades go.
func CheckSkew(k *knowledge.Base, control, data *semver.Version, mode Mode) error {
	span := mode.span(k.Skew())
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

// SupportedKubernetes is the range of Kubernetes versions that an Istio minor
// was tested with (https://istio.io/latest/docs/releases/supported-releases/);
// ok is false for versions of which nothing is known.
func SupportedKubernetes(k *knowledge.Base, istio *semver.Version) (r knowledge.Range, ok bool) {
	release := k.Release(istio)
	if release == nil || release.Kubernetes == (knowledge.Range{}) {
		return knowledge.Range{}, false
	}
	return release.Kubernetes, true
}
