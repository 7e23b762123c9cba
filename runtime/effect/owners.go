package effect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
)

// Owners gives the JSON patch (RFC 6902) by which the fields of live belong to
// those again who owned them in before, nil where they do, and the managers
// who get fields back. What others have
// come to own since stays theirs, subresources are left out, and rutter keeps
// its marks. The patch replaces the whole list, so it must be sent with live's
// resourceVersion.
//
// The server takes an explicit list of managedFields as it is (k8s.io/apimachinery
// managedfields, FieldManager.Update); who changes fields in the same request
// owns those besides, which here are rutter's marks only.
func Owners(before, live *cluster.Object) (patch []any, back []string, err error) {
	was, err := owners(before)
	if err != nil {
		return nil, nil, err
	}
	is, err := owners(live)
	if err != nil {
		return nil, nil, err
	}
	marks := fieldpath.NewSet(
		fieldpath.MakePathOrDie("metadata", "annotations"),
		fieldpath.MakePathOrDie("metadata", "annotations", cluster.AnnotationRun),
		fieldpath.MakePathOrDie("metadata", "annotations", cluster.AnnotationEffect),
	)
	var list []metav1.ManagedFieldsEntry
	same := true
	for _, o := range is {
		i := slices.IndexFunc(was, func(w owner) bool { return w.same(o) })
		want := o.fields
		switch {
		case o.entry.Subresource != "":
		case o.entry.Manager == cluster.FieldManager:
			had := fieldpath.NewSet()
			if i >= 0 {
				had = was[i].fields
			}
			want = o.fields.Intersection(had.Union(marks))
			if !o.fields.Difference(had.Union(marks)).Empty() || !had.Difference(o.fields).Empty() {
				same = false
				want = want.Union(had)
			}
		case i >= 0:
			if want = o.fields.Union(was[i].fields); !want.Equals(o.fields) {
				same = false
				back = append(back, o.entry.Manager)
			}
		}
		if err := o.keep(want, &list); err != nil {
			return nil, nil, fmt.Errorf("%s: managedFields: %w", cluster.RefOf(live), err)
		}
	}
	for _, w := range was {
		if w.entry.Subresource != "" || slices.ContainsFunc(is, w.same) {
			continue
		}
		if w.entry.Manager == cluster.FieldManager && w.fields.Difference(marks).Empty() {
			continue // an earlier run's marks
		}
		same = false
		if w.entry.Manager != cluster.FieldManager {
			back = append(back, w.entry.Manager)
		}
		if err := w.keep(w.fields, &list); err != nil {
			return nil, nil, fmt.Errorf("%s: managedFields: %w", cluster.RefOf(before), err)
		}
	}
	if same {
		return nil, nil, nil
	}
	raw, err := json.Marshal(list)
	if err != nil {
		return nil, nil, err
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, nil, err
	}
	slices.Sort(back)
	return []any{map[string]any{"op": "replace", "path": "/metadata/managedFields", "value": v}}, slices.Compact(back), nil
}

// owner is one entry of managedFields with its fields.
type owner struct {
	entry  metav1.ManagedFieldsEntry
	fields *fieldpath.Set
}

// same reports whether two entries are of one owner.
func (o owner) same(p owner) bool {
	return o.entry.Manager == p.entry.Manager && o.entry.Operation == p.entry.Operation &&
		o.entry.APIVersion == p.entry.APIVersion && o.entry.Subresource == p.entry.Subresource
}

func owners(o *cluster.Object) ([]owner, error) {
	var out []owner
	for _, e := range o.GetManagedFields() {
		fields := fieldpath.NewSet()
		if e.FieldsV1 != nil {
			if err := fields.FromJSON(e.FieldsV1.GetRawReader()); err != nil {
				return nil, fmt.Errorf("%s: managedFields of %s: %w", cluster.RefOf(o), e.Manager, err)
			}
		}
		out = append(out, owner{e, fields})
	}
	return out, nil
}

// keep adds the entry with the given fields to list, unless there are none.
func (o owner) keep(fields *fieldpath.Set, list *[]metav1.ManagedFieldsEntry) error {
	if fields.Empty() {
		return nil
	}
	e := o.entry
	if !fields.Equals(o.fields) {
		raw, err := fields.ToJSON()
		if err != nil {
			return err
		}
		e.FieldsV1 = &metav1.FieldsV1{}
		e.FieldsV1.SetRawBytes(raw)
	}
	*list = append(*list, e)
	return nil
}

// OwnersOnly reports whether the effect is a patch that says who owns which
// field, and changes none.
func (e *Effect) OwnersOnly() bool {
	if e.Verb != Patch || len(e.Body) == 0 {
		return false
	}
	type op struct{ Op, Path string }
	var ops []op
	if json.Unmarshal(e.Body, &ops) != nil || len(ops) == 0 {
		return false
	}
	return !slices.ContainsFunc(ops, func(o op) bool {
		within := o.Path == "/metadata/managedFields" || strings.HasPrefix(o.Path, "/metadata/managedFields/")
		return o.Op != "test" && (!within || !slices.Contains([]string{"add", "remove", "replace"}, o.Op))
	})
}
