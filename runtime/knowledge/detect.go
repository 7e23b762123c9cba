package knowledge

import (
	"cmp"
	"errors"
	"fmt"
	stdpath "path"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/cluster"
)

// Detection says which objects a note concerns: those of a subject that all
// conditions hold for.
type Detection struct {
	// In is a kind ("EnvoyFilter.networking.istio.io", "Service") or one of the
	// subjects (istiod, cni, ztunnel, workload, mesh-config, values), or several
	// of these with commas between them.
	In string `yaml:"in"`
	// Says is what such an object does, for a person: "sets METRIC_ROTATION_INTERVAL".
	Says string `yaml:"says"`
	// Names are shell patterns; none means any name.
	Names []string `yaml:"names"`
	// Labels are those that the object has; "*" is any value.
	Labels map[string]string `yaml:"labels"`
	All    []*Condition      `yaml:"all"`
	// Shared is a path: some value there must be in objects of the detection in
	// two namespaces.
	Shared string `yaml:"shared"`
	// With is what must be in the cluster besides, all of it, for this to matter.
	With []*Detection `yaml:"with"`
	// Mine and Theirs are for a detection that another is with: a value at Mine
	// in the object is at Theirs in what it is with (lists with commas are
	// split), which with Elsewhere is in another namespace.
	Mine      string `yaml:"mine"`
	Theirs    string `yaml:"theirs"`
	Elsewhere bool   `yaml:"elsewhere"`

	subjects             []subject
	shared, mine, theirs path
}

// Condition is one on the values at a path of the object. Without any of the
// others, a value must be there.
type Condition struct {
	Field string `yaml:"field"` // see path
	// Env stands for the variable of this name in any container of the pod
	// template.
	Env     string   `yaml:"env"`
	Set     *bool    `yaml:"set"`     // some value is there, or none
	Is      []string `yaml:"is"`      // some value is one of these
	Not     []string `yaml:"not"`     // no value is one of these
	Matches string   `yaml:"matches"` // some value matches the regular expression
	Older   string   `yaml:"older"`   // some value, a version or an image, is older
	// All holds for one of the values, whose fields the conditions name.
	All []*Condition `yaml:"all"`
	// Any needs one of these instead; it stands alone.
	Any []*Condition `yaml:"any"`

	at      path
	matches *regexp.Regexp
	older   *semver.Version
}

// maxNesting bounds conditions within conditions.
const maxNesting = 8

// compile prepares d, or says what is wrong with it.
func (d *Detection) compile() (err error) {
	d.subjects = nil
	for name := range strings.SplitSeq(d.In, ",") {
		s, err := subjectOf(strings.TrimSpace(name))
		if err != nil {
			return err
		}
		d.subjects = append(d.subjects, s)
	}
	if d.Says == "" {
		return errors.New("a detection has no says: what an object does that it finds")
	}
	for _, n := range d.Names {
		if _, err := stdpath.Match(n, ""); err != nil {
			return fmt.Errorf("names: pattern %q: %w", n, err)
		}
	}
	if err := compileAll(d.All, 0); err != nil {
		return err
	}
	if d.Shared != "" {
		if d.shared, err = parsePath(d.Shared); err != nil {
			return fmt.Errorf("shared: %w", err)
		}
	}
	for _, w := range d.With {
		if w == nil || len(w.With) > 0 || w.Shared != "" {
			return errors.New("with: what is with something has neither with nor shared")
		}
		w.Says = cmp.Or(w.Says, "is there")
		if err := w.compile(); err != nil {
			return fmt.Errorf("with: %w", err)
		}
		if err := w.join(); err != nil {
			return fmt.Errorf("with: %w", err)
		}
	}
	return nil
}

// join prepares what binds the detection to the one that it is with.
func (d *Detection) join() (err error) {
	if (d.Mine == "") != (d.Theirs == "") || d.Elsewhere && d.Mine == "" {
		return errors.New("mine and theirs go together, and elsewhere with them")
	}
	if d.Mine == "" {
		return nil
	}
	if d.mine, err = parsePath(d.Mine); err != nil {
		return fmt.Errorf("mine: %w", err)
	}
	if d.theirs, err = parsePath(d.Theirs); err != nil {
		return fmt.Errorf("theirs: %w", err)
	}
	return nil
}

func compileAll(cs []*Condition, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("conditions are nested more than %d deep", maxNesting)
	}
	for _, c := range cs {
		if c == nil {
			return errors.New("an empty condition")
		}
		if err := c.compile(depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *Condition) compile(depth int) (err error) {
	if len(c.Any) > 0 {
		if c.Field != "" || c.Env != "" || c.tests() > 0 {
			return errors.New("any: stands alone in its condition")
		}
		return compileAll(c.Any, depth+1)
	}
	field := c.Field
	switch {
	case c.Env != "" && field != "":
		return fmt.Errorf("env %s: goes without field", c.Env)
	case c.Env != "":
		if strings.ContainsAny(c.Env, "[]=") {
			return fmt.Errorf("env %q is no name of a variable", c.Env)
		}
		field = "spec.template.spec.containers[].env[name=" + c.Env + "]"
		if c.tests() > 0 && c.Set == nil {
			field += ".value"
		}
	case field == "":
		return errors.New("a condition has neither field, env nor any")
	}
	if c.at, err = parsePath(field); err != nil {
		return err
	}
	if c.tests() > 1 {
		return fmt.Errorf("%s: set, is, not, matches, older and all exclude one another", field)
	}
	if c.Matches != "" {
		if c.matches, err = regexp.Compile(c.Matches); err != nil {
			return fmt.Errorf("%s: matches: %w", field, err)
		}
	}
	if c.Older != "" {
		if c.older, err = semver.NewVersion(c.Older); err != nil {
			return fmt.Errorf("%s: older: %q is no version", field, c.Older)
		}
	}
	return compileAll(c.All, depth+1)
}

// tests counts what is asked of the values.
func (c *Condition) tests() int {
	n := 0
	for _, set := range []bool{c.Set != nil, len(c.Is) > 0, len(c.Not) > 0, c.Matches != "", c.Older != "", len(c.All) > 0} {
		if set {
			n++
		}
	}
	return n
}

// holds reports whether the condition holds for a value.
func (c *Condition) holds(v any) bool {
	if len(c.Any) > 0 {
		return slices.ContainsFunc(c.Any, func(a *Condition) bool { return a.holds(v) })
	}
	found := c.at.values(v)
	switch {
	case c.Set != nil:
		return len(found) > 0 == *c.Set
	case len(c.Not) > 0:
		return !slices.ContainsFunc(found, func(v any) bool { return oneOf(c.Not, v) })
	}
	return slices.ContainsFunc(found, c.one)
}

// one reports whether a single value passes.
func (c *Condition) one(v any) bool {
	switch {
	case len(c.Is) > 0:
		return oneOf(c.Is, v)
	case c.matches != nil:
		s, ok := textOf(v)
		return ok && c.matches.MatchString(s)
	case c.older != nil:
		s, _ := textOf(v)
		got := versionIn(s)
		return got != nil && got.LessThan(c.older)
	case len(c.All) > 0:
		return all(c.All, v)
	}
	return true
}

func all(cs []*Condition, v any) bool {
	return !slices.ContainsFunc(cs, func(c *Condition) bool { return !c.holds(v) })
}

func oneOf(texts []string, v any) bool {
	s, ok := textOf(v)
	return ok && slices.Contains(texts, s)
}

var versionTag = regexp.MustCompile(`^v?(\d+\.\d+(?:\.\d+)?)(?:$|[-+])`)

// versionIn is the version that s is, or that the image s is tagged with,
// without what comes after a dash; nil if there is none.
func versionIn(s string) *semver.Version {
	s, _, _ = strings.Cut(s, "@")
	if i := strings.LastIndex(s, ":"); i >= 0 {
		s = s[i+1:]
	}
	m := versionTag.FindStringSubmatch(s)
	if m == nil {
		return nil
	}
	v, err := semver.NewVersion(m[1])
	if err != nil {
		return nil
	}
	return v
}

// covers reports whether the detection is about the object at all.
func (d *Detection) covers(o *cluster.Object) bool {
	if d.subjectFor(o) == nil {
		return false
	}
	if len(d.Names) > 0 && !slices.ContainsFunc(d.Names, func(p string) bool {
		ok, err := stdpath.Match(p, o.GetName())
		return err == nil && ok
	}) {
		return false
	}
	has := o.GetLabels()
	for k, want := range d.Labels {
		if got, ok := has[k]; !ok || want != "*" && got != want {
			return false
		}
	}
	return true
}

// subjectFor is the subject that o belongs to; nil if it belongs to none.
func (d *Detection) subjectFor(o *cluster.Object) *subject {
	for i := range d.subjects {
		if d.subjects[i].covers(o) {
			return &d.subjects[i]
		}
	}
	return nil
}

// matches reports whether d finds something in o. Other objects are not looked
// at.
func (d *Detection) matches(o *cluster.Object) bool {
	return d.covers(o) && slices.ContainsFunc(d.subjectFor(o).views(o), func(v any) bool { return all(d.All, v) })
}

// alone reports whether the object tells by itself.
func (d *Detection) alone() bool { return len(d.With) == 0 && d.shared == nil }

// Match says what the object does that the note is about, each thing once;
// nothing if it does not concern the object. What depends on other objects is
// left out: Look tells that.
func (n *Note) Match(o *cluster.Object) []string {
	var out []string
	for _, d := range n.Detect {
		if d.alone() && d.matches(o) && !slices.Contains(out, d.Says) {
			out = append(out, d.Says)
		}
	}
	return out
}
