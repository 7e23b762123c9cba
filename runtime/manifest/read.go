package manifest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"go.starlark.net/starlark"
	"golang.org/x/sync/errgroup"
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
	docs, err := documents(text)
	if err != nil {
		return nil, err
	}
	read := make([][]*cluster.Object, len(docs))
	errs := make([]error, len(docs))
	var g errgroup.Group // one after the other, a mesh takes a fifth of a second
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, doc := range docs {
		g.Go(func() error {
			read[i], errs[i] = document(doc)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var out []*cluster.Object
	var from []int
	for i, objs := range read {
		if errs[i] != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, errs[i])
		}
		for _, o := range objs {
			out, from = append(out, o), append(from, i+1)
		}
	}
	return out, validate(out, func(i int) string { return fmt.Sprintf("document %d", from[i]) })
}

// documents takes a text of YAML apart.
func documents(text string) (out [][]byte, err error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w: %w", len(out)+1, ErrInput, err)
		}
		out = append(out, doc)
	}
}

// document is the objects of one document, none of an empty one. A kind is not
// required, so that validate can name what is missing.
func document(doc []byte) ([]*cluster.Object, error) {
	x, err := plain.Written.Decode(doc)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	case x == nil:
		return nil, nil
	}
	m, ok := x.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("got %T, want an object with apiVersion and kind: %w", x, ErrInput)
	}
	return flatten(&cluster.Object{Object: m}), nil
}
