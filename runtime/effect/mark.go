package effect

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plain"
)

// Marks are what rutter writes on an object beside the change itself, so that the
// effect can be found again: its run and its key. They are no part of the body, nor
// of its digest.
type Marks struct{ Run, Key string }

func (m Marks) annotations() map[string]string {
	return map[string]string{cluster.AnnotationRun: m.Run, cluster.AnnotationEffect: m.Key}
}

// MarkedObject is the object in the body of an Apply, Create or Replace as it is
// sent: with the marks, where the effect has them.
func (e *Effect) MarkedObject() (*cluster.Object, error) {
	obj, err := cluster.DecodeObject(e.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: body: %w", e.Ref, err)
	}
	if e.Marks == (Marks{}) {
		return obj, nil
	}
	a := obj.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	maps.Copy(a, e.Marks.annotations())
	obj.SetAnnotations(a)
	return obj, nil
}

// MarkedPatch is the body of a Patch, of any type, as it is sent: with the marks,
// where the effect has them.
func (e *Effect) MarkedPatch() ([]byte, error) {
	switch {
	case e.Marks == (Marks{}):
		return e.Body, nil
	case types.PatchType(e.PatchType) == types.JSONPatchType:
		return e.markedOperations()
	}
	body := map[string]any{}
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return nil, fmt.Errorf("%s: patch: %w", e.Ref, err)
	}
	annotations := within(within(body, "metadata"), "annotations")
	for k, v := range e.Marks.annotations() {
		annotations[k] = v
	}
	return plain.Encode(body)
}

// within is the map at a key, which is made where there is none.
func within(m map[string]any, key string) map[string]any {
	in, _ := m[key].(map[string]any)
	if in == nil {
		in = map[string]any{}
		m[key] = in
	}
	return in
}

func (e *Effect) markedOperations() ([]byte, error) {
	var ops []any
	if err := json.Unmarshal(e.Body, &ops); err != nil {
		return nil, fmt.Errorf("%s: JSON patch: %w", e.Ref, err)
	}
	marks := e.Marks.annotations()
	if e.Before == nil || len(e.Before.GetAnnotations()) == 0 {
		ops = append(ops, map[string]any{"op": "add", "path": "/metadata/annotations", "value": marks})
		return json.Marshal(ops)
	}
	for _, k := range []string{cluster.AnnotationEffect, cluster.AnnotationRun} {
		ops = append(ops, map[string]any{"op": "add", "path": "/metadata/annotations/" + pointerToken(k), "value": marks[k]})
	}
	return json.Marshal(ops)
}

// pointerToken escapes a key for a JSON pointer (RFC 6901).
func pointerToken(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }
