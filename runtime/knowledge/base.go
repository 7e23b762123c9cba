// Package knowledge holds what is known of Istio's releases, as data: which
// Kubernetes versions each supports, how far a control plane may go at once,
// and what each minor version removed and changed, with what to do about it and
// where that is written. Detectors find what of it concerns a cluster or a
// manifest.
//
// The data is in data/, one file per minor version, one of fields that are gone; a file of an organization
// can be laid over it (Load), so that a new Istio release needs no new rutter.
// A Base is never changed once it is made, and safe for concurrent use.
package knowledge

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/diag"
)

// Class says how it is found out whether a note concerns a mesh.
type Class string

// The classes of notes.
const (
	Detector   Class = "detector"   // the cluster or a manifest tells
	Manual     Class = "manual"     // a person has to look
	Irrelevant Class = "irrelevant" // it concerns no upgrade of a mesh by rutter
)

// Severity says what happens to what a note concerns.
type Severity string

// The severities. Removed is what RUT017 blocks for; Changed and Ineffective
// it warns of.
const (
	Removed     Severity = "removed"     // what uses it is refused or breaks
	Changed     Severity = "changed"     // it goes on, and behaves in another way
	Ineffective Severity = "ineffective" // it is still accepted, and does nothing any more
	Notice      Severity = "notice"      // nothing changes yet: a deprecation, something new
)

// Note is one thing that a minor version brought, in rutter's own words.
type Note struct {
	ID       string   `yaml:"id" json:"id"` // "istio-1.24-verify-install"; never given to another note
	Title    string   `yaml:"title" json:"title"`
	Severity Severity `yaml:"severity" json:"severity"`
	Changes  string   `yaml:"changes" json:"changes"` // what changes
	Do       string   `yaml:"do" json:"do"`           // what to do about it
	Class    Class    `yaml:"class" json:"class"`
	Reason   string   `yaml:"reason" json:"reason"` // why it is of that class
	// Affects are the components, kinds and fields that it is about.
	Affects []string `yaml:"affects" json:"affects"`
	// Sources are where it was read: a path in istio/istio, an issue
	// (istio/istio#123), or a page of istio.io.
	Sources []string `yaml:"sources" json:"sources"`
	// Detect are alternatives.
	Detect []*Detection `yaml:"detect" json:"-"`

	Istio string   `yaml:"-" json:"istio"` // the minor version, "1.24"
	Pos   diag.Pos `yaml:"-" json:"-"`
}

// Range is a range of Kubernetes 1.x minor versions, both ends included.
type Range struct{ Min, Max int }

// Contains reports whether 1.minor is in the range.
func (r Range) Contains(minor int) bool { return minor >= r.Min && minor <= r.Max }

// String is "1.32–1.36".
func (r Range) String() string { return fmt.Sprintf("1.%d–1.%d", r.Min, r.Max) }

// Release is what is known of one minor version of Istio.
type Release struct {
	Istio      string   `json:"istio"`      // "1.24"
	Kubernetes Range    `json:"kubernetes"` // that it was tested with
	Sources    []string `json:"sources"`
	Notes      []*Note  `json:"notes"` // in the order in which they are written

	major, minor uint64
}

// Skew is how many minor versions may lie between two parts of a mesh
// (https://istio.io/latest/docs/setup/upgrade/).
type Skew struct {
	InPlace    uint64   `yaml:"inPlace" json:"inPlace"`       // of a control plane's upgrade in place, and of proxies behind it
	ByRevision uint64   `yaml:"byRevision" json:"byRevision"` // with the new one beside the old
	NodeAgents uint64   `yaml:"nodeAgents" json:"nodeAgents"` // of istio-cni and ztunnel behind their istiod
	Sources    []string `yaml:"sources" json:"sources"`
}

// Base is all that is known.
type Base struct {
	skew     Skew
	releases []*Release // ascending
	removed  []*RemovedField
}

// Skew is the rules for how far versions may lie apart.
func (b *Base) Skew() Skew { return b.skew }

// Releases are the minor versions that are known, ascending.
func (b *Base) Releases() []*Release { return slices.Clone(b.releases) }

// Release is what is known of v's minor version; nil if nothing is.
func (b *Base) Release(v *semver.Version) *Release { return b.release(v.Major(), v.Minor()) }

func (b *Base) release(major, minor uint64) *Release {
	for _, r := range b.releases {
		if r.major == major && r.minor == minor {
			return r
		}
	}
	return nil
}

// Between are the notes of the minor versions after from's up to to's, oldest
// first: what an upgrade from one to the other meets.
func (b *Base) Between(from, to *semver.Version) []*Note {
	var out []*Note
	for _, r := range b.releases {
		if r.after(from) && !r.after(to) {
			out = append(out, r.Notes...)
		}
	}
	return out
}

// Unknown are the minor versions after from's up to to's of which nothing is
// known.
func (b *Base) Unknown(from, to *semver.Version) []string {
	var out []string
	if from.Major() != to.Major() {
		if b.Release(to) == nil {
			out = append(out, fmt.Sprintf("%d.%d", to.Major(), to.Minor()))
		}
		return out
	}
	for m := from.Minor() + 1; m <= to.Minor() && len(out) < 10; m++ {
		if b.release(to.Major(), m) == nil {
			out = append(out, fmt.Sprintf("%d.%d", to.Major(), m))
		}
	}
	return out
}

func (r *Release) after(v *semver.Version) bool {
	return cmp.Or(cmp.Compare(r.major, v.Major()), cmp.Compare(r.minor, v.Minor())) > 0
}

// Note finds a note by id; an error names the nearest one.
func (b *Base) Note(id string) (*Note, error) {
	var ids []string
	for _, r := range b.releases {
		for _, n := range r.Notes {
			if n.ID == id {
				return n, nil
			}
			ids = append(ids, n.ID)
		}
	}
	d := diag.Usagef(id, "no note of this id")
	if near := diag.Nearest(id, ids); near != "" {
		d.Problem += "; did you mean " + near + "?"
	}
	d.Next = "rutter knowledge"
	return nil, d
}

// over lays what another base knows over b: a release's Kubernetes range and
// notes of the same id are replaced, the rest is added.
func (b *Base) over(o *Base) *Base {
	out := &Base{skew: b.skew, removed: b.fieldsOver(o)}
	if len(o.skew.Sources) > 0 {
		out.skew = o.skew
	}
	for _, r := range b.releases {
		c := *r
		c.Notes = slices.Clone(r.Notes)
		out.releases = append(out.releases, &c)
	}
	for _, r := range o.releases {
		known := out.release(r.major, r.minor)
		if known == nil {
			out.releases = append(out.releases, r)
			continue
		}
		if r.Kubernetes != (Range{}) {
			known.Kubernetes, known.Sources = r.Kubernetes, r.Sources
		}
		for _, n := range r.Notes {
			if i := slices.IndexFunc(known.Notes, func(k *Note) bool { return k.ID == n.ID }); i >= 0 {
				known.Notes[i] = n
			} else {
				known.Notes = append(known.Notes, n)
			}
		}
	}
	slices.SortFunc(out.releases, func(a, b *Release) int {
		return cmp.Or(cmp.Compare(a.major, b.major), cmp.Compare(a.minor, b.minor))
	})
	return out
}
