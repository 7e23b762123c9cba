package knowledge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
)

// Hit is one object that a note concerns.
type Hit struct {
	Ref  cluster.Ref `json:"ref"`
	Says string      `json:"says"` // what it does, "sets METRIC_ROTATION_INTERVAL"
	// Labels are the object's, for callers that tell an install's own from others.
	Labels map[string]string `json:"-"`

	by     *Detection
	shared []string                // values at by.Shared
	mine   map[*Detection][]string // and at Mine of what by is with
}

// Found is what was found for one note.
type Found struct {
	Note *Note `json:"note"`
	Hits []Hit `json:"hits,omitempty"` // by kind, namespace and name; none: it does not concern the cluster
}

// Look looks for what detector notes are about, each kind of object read once;
// notes of other classes are left out. A kind that the server does not have has
// no objects. The order is that of notes.
func Look(ctx context.Context, r cluster.Reader, notes []*Note) ([]Found, error) {
	l := &looking{r: r, hits: map[*Note][]Hit{}, there: map[*Detection]spread{}}
	var (
		asked  []*Note
		needed []*Detection
	)
	for _, n := range notes {
		if n.Class != Detector {
			continue
		}
		asked = append(asked, n)
		for _, d := range n.Detect {
			l.all = append(l.all, finding{n, d})
			needed = append(needed, d.With...)
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	if err := l.read(ctx, needed); err != nil {
		return nil, err
	}
	out := make([]Found, len(asked))
	for i, n := range asked {
		hits := l.hits[n]
		slices.SortStableFunc(hits, func(a, b Hit) int {
			return cmp.Or(cmp.Compare(a.Ref.Kind, b.Ref.Kind), cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name))
		})
		out[i] = Found{Note: n, Hits: slices.CompactFunc(hits, func(a, b Hit) bool { return a.Ref == b.Ref && a.Says == b.Says })}
	}
	return out, nil
}

type finding struct {
	note *Note
	d    *Detection
}

type looking struct {
	r     cluster.Reader
	all   []finding
	hits  map[*Note][]Hit
	there map[*Detection]spread // what detections are with, and its values
	spots map[string]bool       // namespaces of control planes and CNI
}

// read goes through every kind that is asked for.
func (l *looking) read(ctx context.Context, with []*Detection) error {
	want := map[string]bool{}
	for _, d := range with {
		wanted(want, d)
	}
	for _, f := range l.all {
		wanted(want, f.d)
	}
	resources, err := l.r.Resources(ctx)
	if err != nil {
		return fmt.Errorf("upgrade notes: %w", err)
	}
	for _, res := range resources {
		if !want[res.GVK.GroupKind().String()] {
			continue
		}
		if err := l.kind(ctx, resources, res, with); err != nil {
			return fmt.Errorf("upgrade notes: %s: %w", res.GVR.GroupResource(), err)
		}
	}
	for _, f := range l.all {
		l.settle(f)
	}
	return nil
}

func wanted(kinds map[string]bool, d *Detection) {
	for _, s := range d.subjects {
		for _, k := range s.kinds {
			kinds[k.String()] = true
		}
	}
}

// settle drops the hits of a detection that other objects decide of: where what
// it is with is not there, and where no value is shared.
func (l *looking) settle(f finding) {
	if f.d.alone() {
		return
	}
	in := spread{}
	for _, h := range l.hits[f.note] {
		if h.by == f.d {
			in.add(h.Ref.Namespace, h.shared)
		}
	}
	l.hits[f.note] = slices.DeleteFunc(l.hits[f.note], func(h Hit) bool {
		switch {
		case h.by != f.d:
			return false
		case f.d.shared != nil && !in.beyond(h.Ref.Namespace, h.shared):
			return true
		}
		return slices.ContainsFunc(f.d.With, func(w *Detection) bool { return !l.bound(h, w) })
	})
}

// bound reports whether what the hit's detection is with is there.
func (l *looking) bound(h Hit, w *Detection) bool {
	in, there := l.there[w]
	switch {
	case !there:
		return false
	case w.mine == nil:
		return true
	case w.Elsewhere:
		return in.beyond(h.Ref.Namespace, h.mine[w])
	}
	return slices.ContainsFunc(h.mine[w], func(v string) bool { return len(in[v]) > 0 })
}

// spread is in which namespaces values were found.
type spread map[string]map[string]bool

func (s spread) add(namespace string, values []string) {
	for _, v := range values {
		if s[v] == nil {
			s[v] = map[string]bool{}
		}
		s[v][namespace] = true
	}
}

// beyond reports whether one of the values was found in another namespace.
func (s spread) beyond(namespace string, values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool {
		for ns := range s[v] {
			if ns != namespace {
				return true
			}
		}
		return false
	})
}

// textsAt are the scalars at p, split at commas; none where there is no p.
func textsAt(p path, o *cluster.Object) []string {
	var out []string
	if p == nil {
		return nil
	}
	for _, v := range p.values(o.Object) {
		s, _ := textOf(v)
		for _, t := range strings.Split(s, ",") {
			if t = strings.TrimSpace(t); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}

// kind reads the objects of one kind, as few as the detections allow.
func (l *looking) kind(ctx context.Context, all []cluster.Resource, res cluster.Resource, with []*Detection) error {
	gk := res.GVK.GroupKind()
	opts, err := l.options(ctx, all, gk, with)
	if err != nil {
		return err
	}
	for _, o := range opts {
		o.Lean = true
		err := l.r.List(ctx, res, o, func(o *cluster.Object) error {
			if o.GetKind() == "" { // items of a list may come without
				o.SetGroupVersionKind(res.GVK)
			}
			l.judge(o, with)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *looking) judge(o *cluster.Object, with []*Detection) {
	for _, f := range l.all {
		if !f.d.matches(o) {
			continue
		}
		h := Hit{Ref: cluster.RefOf(o), Says: f.d.Says, Labels: o.GetLabels(), by: f.d, shared: textsAt(f.d.shared, o)}
		for _, w := range f.d.With {
			if w.mine != nil {
				if h.mine == nil {
					h.mine = map[*Detection][]string{}
				}
				h.mine[w] = textsAt(w.mine, o)
			}
		}
		l.hits[f.note] = append(l.hits[f.note], h)
	}
	for _, d := range with {
		if !d.matches(o) {
			continue
		}
		if l.there[d] == nil {
			l.there[d] = spread{}
		}
		l.there[d].add(o.GetNamespace(), textsAt(d.theirs, o))
	}
}

// options are the lists by which the objects of a kind are read: by the labels
// of the subjects where all have some, in the mesh's own namespaces where that
// is enough, else everywhere.
func (l *looking) options(ctx context.Context, all []cluster.Resource, gk schema.GroupKind, with []*Detection) ([]cluster.ListOptions, error) {
	var subjects []subject
	for _, f := range l.all {
		subjects = append(subjects, f.d.subjects...)
	}
	for _, d := range with {
		subjects = append(subjects, d.subjects...)
	}
	subjects = slices.DeleteFunc(subjects, func(s subject) bool { return !slices.Contains(s.kinds, gk) })
	var byLabel, byNamespace []cluster.ListOptions
	for _, s := range subjects {
		if len(s.labels) == 0 && !s.meshOnly {
			return []cluster.ListOptions{{}}, nil
		}
		for _, sel := range s.labels {
			o := cluster.ListOptions{Labels: sel.String()}
			if !slices.Contains(byLabel, o) {
				byLabel = append(byLabel, o)
			}
		}
	}
	if slices.ContainsFunc(subjects, func(s subject) bool { return s.meshOnly }) {
		if err := l.findSpots(ctx, all); err != nil {
			return nil, err
		}
		for ns := range l.spots {
			byNamespace = append(byNamespace, cluster.ListOptions{Namespace: ns})
		}
		slices.SortFunc(byNamespace, func(a, b cluster.ListOptions) int { return cmp.Compare(a.Namespace, b.Namespace) })
	}
	return append(byLabel, byNamespace...), nil
}

// findSpots finds the namespaces in which the mesh's own ConfigMaps are.
func (l *looking) findSpots(ctx context.Context, all []cluster.Resource) error {
	if l.spots != nil {
		return nil
	}
	l.spots = map[string]bool{}
	for _, name := range []string{"istiod", "cni"} {
		s, err := subjectOf(name)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(r cluster.Resource) bool { return r.GVK.GroupKind() == s.kinds[0] })
		if i < 0 {
			continue
		}
		o := cluster.ListOptions{Labels: s.labels[0].String(), MetadataOnly: true}
		if err := l.r.List(ctx, all[i], o, func(o *cluster.Object) error {
			l.spots[o.GetNamespace()] = true
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
