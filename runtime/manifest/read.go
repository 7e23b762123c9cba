package manifest

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.starlark.net/starlark"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/value"
)

// From reads the desired objects that a runbook gives in any of the forms of
// DESIGN §1: a manifest, an object (or a dict), a list of objects, or YAML
// text of one or more documents. The error names the document or the element.
func From(v starlark.Value, blobs Blobs) ([]*cluster.Object, error) {
	objs, err := read(v, blobs)
	if err != nil {
		return nil, err
	}
	if len(objs) == 0 {
		return nil, fmt.Errorf("holds no object: %w", ErrInput)
	}
	return objs, nil
}

func read(v starlark.Value, blobs Blobs) ([]*cluster.Object, error) {
	switch v := v.(type) {
	case *Manifest:
		return v.Objects(blobs)
	case starlark.String:
		return Parse(string(v))
	case *value.Object, *starlark.Dict:
		return one(v)
	case starlark.Iterable:
		var out []*cluster.Object
		for e := range starlark.Elements(v) {
			objs, err := read(e, blobs)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", len(out), err)
			}
			out = append(out, objs...)
		}
		return out, validate(out, func(i int) string { return fmt.Sprintf("[%d]", i) })
	}
	return nil, fmt.Errorf("got %s, want a manifest, an object, a list of objects or YAML text: %w", v.Type(), ErrInput)
}

func one(v starlark.Value) ([]*cluster.Object, error) {
	x, err := value.ToManifest(v)
	if err != nil {
		return nil, err
	}
	m, ok := x.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("got %s, want an object: %w", v.Type(), ErrInput)
	}
	out := flatten(&cluster.Object{Object: m})
	return out, validate(out, func(i int) string {
		if len(out) == 1 {
			return "object"
		}
		return fmt.Sprintf("items[%d]", i)
	})
}

// flatten opens a List.
func flatten(o *cluster.Object) []*cluster.Object {
	items, ok := o.Object["items"].([]any)
	if !ok || !strings.HasSuffix(o.GetKind(), "List") {
		return []*cluster.Object{o}
	}
	out := make([]*cluster.Object, 0, len(items))
	for _, it := range items {
		m, _ := it.(map[string]any)
		out = append(out, &cluster.Object{Object: m})
	}
	return out
}

// Parse reads YAML (or JSON) text of any number of documents. Empty documents
// and those of comments alone are passed over, but counted: the error names
// the document by its place in the text. Keys that occur twice are errors.
func Parse(text string) ([]*cluster.Object, error) {
	docs := utilyaml.NewYAMLReader(newReader(text))
	var out []*cluster.Object
	var from []int
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w: %w", n, ErrInput, err)
		}
		j, err := plain.Written.JSON(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w: %w", n, ErrInput, err)
		}
		if s := strings.TrimSpace(string(j)); s == "null" || s == "" {
			continue
		}
		o := &cluster.Object{}
		if err := decodeObject(j, o); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		for _, e := range flatten(o) {
			out = append(out, e)
			from = append(from, n)
		}
	}
	return out, validate(out, func(i int) string { return fmt.Sprintf("document %d", from[i]) })
}
