package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Owned is the union of the fields of o that belong to the managers that match.
// Subresources are left out: what a status writer owns is nobody's to apply.
func Owned(o *Object, match func(metav1.ManagedFieldsEntry) bool) (*fieldpath.Set, error) {
	out := fieldpath.NewSet()
	for _, m := range o.GetManagedFields() {
		if m.Subresource != "" || m.FieldsV1 == nil || !match(m) {
			continue
		}
		s, err := fieldsOf(o, m)
		if err != nil {
			return nil, err
		}
		out = out.Union(s)
	}
	return out, nil
}

func fieldsOf(o *Object, m metav1.ManagedFieldsEntry) (*fieldpath.Set, error) {
	s := fieldpath.NewSet()
	if err := s.FromJSON(m.FieldsV1.GetRawReader()); err != nil {
		return nil, fmt.Errorf("%s: managedFields of %s: %w", RefOf(o), m.Manager, err)
	}
	return s, nil
}

// Move is a change of ownership that leaves the object's content as it is.
type Move struct {
	// Patch is the JSON patch (RFC 6902) of metadata.managedFields. It names
	// entries by their place in the list, so it must be sent with the
	// resourceVersion of the object that it was made from.
	Patch []any
	// Managers are those whose fields move, sorted.
	Managers []string
	// Fields are what moves, Stays what the managers keep.
	Fields, Stays *fieldpath.Set
}

// MoveFields gives the patch by which what the managers own of live becomes
// what FieldManager applied, so that the next server-side apply drops what it
// no longer holds. Paths for which stays is true are left to their manager. It
// is nil where nothing moves.
//
// It follows client-go's util/csaupgrade, by which kubectl takes over what
// client-side apply wrote: one entry of operation Apply gets the union of the
// fields of the same API version. It differs in that it takes entries of Apply
// too (istioctl has applied server-side since 1.24), and in that entries of
// another version, which can't be united without converting them, stay with
// their manager instead of being thrown away.
func MoveFields(live *Object, managers []string, stays func(fieldpath.Path) bool) (*Move, error) {
	entries := live.GetManagedFields()
	target := slices.IndexFunc(entries, func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == FieldManager && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == "" && m.FieldsV1 != nil
	})
	var from []int
	for i, m := range entries {
		if m.Subresource == "" && m.FieldsV1 != nil && m.Manager != FieldManager && slices.Contains(managers, m.Manager) {
			from = append(from, i)
		}
	}
	if len(from) == 0 {
		return nil, nil
	}
	into := entries[latest(entries, from)].APIVersion
	all := fieldpath.NewSet()
	if target >= 0 {
		into = entries[target].APIVersion
		ours, err := fieldsOf(live, entries[target])
		if err != nil {
			return nil, err
		}
		all = ours
	}
	from = slices.DeleteFunc(from, func(i int) bool { return entries[i].APIVersion != into })
	m := &Move{Fields: fieldpath.NewSet(), Stays: fieldpath.NewSet()}
	var removed []any
	for _, i := range slices.Backward(from) { // so that removing one does not move the next
		if err := m.take(live, entries[i], i, stays, &removed); err != nil {
			return nil, err
		}
	}
	if m.Fields.Empty() {
		return nil, nil
	}
	slices.Sort(m.Managers)
	fields, err := encoded(live, all.Union(m.Fields))
	if err != nil {
		return nil, err
	}
	// Replacements and additions come first: they count by the old places.
	if target >= 0 {
		m.Patch = append(m.Patch, operation("replace", strconv.Itoa(target)+"/fieldsV1", fields))
	} else {
		m.Patch = append(m.Patch, operation("add", "-", map[string]any{
			"manager": FieldManager, "operation": string(metav1.ManagedFieldsOperationApply),
			"apiVersion": into, "fieldsType": "FieldsV1", "fieldsV1": fields,
		}))
	}
	m.Patch = append(m.Patch, removed...)
	return m, nil
}

// take moves what may move of one entry.
func (m *Move) take(live *Object, entry metav1.ManagedFieldsEntry, i int, stays func(fieldpath.Path) bool, removed *[]any) error {
	all, err := fieldsOf(live, entry)
	if err != nil {
		return err
	}
	keep := fieldpath.NewSet()
	for p := range all.All() {
		if stays(p) {
			keep.Insert(p.Copy())
		}
	}
	moved := all.Difference(keep)
	if moved.Empty() {
		m.Stays = m.Stays.Union(keep)
		return nil
	}
	m.Fields, m.Stays = m.Fields.Union(moved), m.Stays.Union(keep)
	if !slices.Contains(m.Managers, entry.Manager) {
		m.Managers = append(m.Managers, entry.Manager)
	}
	if keep.Empty() {
		*removed = append(*removed, map[string]any{"op": "remove", "path": managedFieldsPath + strconv.Itoa(i)})
		return nil
	}
	rest, err := encoded(live, keep)
	if err != nil {
		return err
	}
	m.Patch = append(m.Patch, operation("replace", strconv.Itoa(i)+"/fieldsV1", rest))
	return nil
}

// latest is the entry that was written last; the first of those of one time.
func latest(entries []metav1.ManagedFieldsEntry, among []int) int {
	best := among[0]
	for _, i := range among[1:] {
		a, b := entries[i].Time, entries[best].Time
		if a != nil && (b == nil || a.After(b.Time)) {
			best = i
		}
	}
	return best
}

func encoded(o *Object, s *fieldpath.Set) (any, error) {
	raw, err := s.ToJSON()
	if err != nil {
		return nil, fmt.Errorf("%s: managedFields: %w", RefOf(o), err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("%s: managedFields: %w", RefOf(o), err)
	}
	return v, nil
}

const managedFieldsPath = "/metadata/managedFields/"

func operation(op, at string, v any) map[string]any {
	return map[string]any{"op": op, "path": managedFieldsPath + at, "value": v}
}
