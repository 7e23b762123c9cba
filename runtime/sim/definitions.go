package sim

import (
	"crypto/sha256"
	"maps"
	"reflect"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim/kinds"
)

// maxDefinitions bounds what a cluster remembers of definitions' specs.
const maxDefinitions = 512

// definitions remembers what was made of the specs of
// CustomResourceDefinitions: an upgrade applies the same ones over and over, in
// dry-runs and in earnest, and decoding and judging one takes longer than all
// else that such a request does. Clones of a cluster share it. It is safe for
// concurrent use.
type definitions struct {
	mu     sync.Mutex
	of     map[[sha256.Size]byte]*specForms
	stored map[uintptr]*specForms // by the address of the normal form, which it keeps
}

// specForms is what was made of one spec. Nothing of it is ever changed.
type specForms struct {
	internal lazy[*apiextensions.CustomResourceDefinitionSpec] // as the API server's packages judge it
	errs     lazy[field.ErrorList]                             // of its schemas
	resource lazy[*resource]                                   // as it is served

	normal map[string]any // as it is stored; nil when it is not known. Guarded by definitions
}

// spec is what is remembered of a definition's spec: something new if nothing is.
func (d *definitions) spec(spec any) *specForms {
	m, ok := spec.(map[string]any)
	if !ok {
		return &specForms{}
	}
	d.mu.Lock()
	f := d.stored[reflect.ValueOf(m).Pointer()]
	d.mu.Unlock()
	if f != nil {
		return f
	}
	b, err := plain.Encode(m)
	if err != nil {
		return &specForms{}
	}
	key := sha256.Sum256(b)
	d.mu.Lock()
	defer d.mu.Unlock()
	if f = d.of[key]; f == nil {
		if d.of == nil || len(d.of) >= maxDefinitions {
			d.of, d.stored = map[[sha256.Size]byte]*specForms{}, map[uintptr]*specForms{}
		}
		f = &specForms{}
		d.of[key] = f
	}
	return f
}

// normal is the spec of f as it is stored, if that is known.
func (d *definitions) normal(f *specForms) map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f.normal
}

// remember keeps what the spec of f was normalized to.
func (d *definitions) remember(f *specForms, normal map[string]any) {
	n := d.spec(normal)
	d.mu.Lock()
	defer d.mu.Unlock()
	f.normal = normal
	if n.normal == nil {
		n.normal = normal
		d.stored[reflect.ValueOf(normal).Pointer()] = n
	}
}

// normalizeDefinition is normalize for a CustomResourceDefinition.
func (c *Cluster) normalizeDefinition(res *resource, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	forms := c.defs.spec(obj.Object["spec"])
	if normal := c.defs.normal(forms); normal != nil {
		rest := maps.Clone(obj.Object)
		delete(rest, "spec")
		out, err := normalizeTyped(res, &unstructured.Unstructured{Object: rest}, o)
		if err == nil {
			out.Object["spec"] = normal
		}
		return out, err
	}
	var complaints []string
	heard := o
	heard.warnings = &complaints
	out, err := normalizeTyped(res, obj, heard)
	for _, w := range complaints {
		o.warn(w)
	}
	if err != nil {
		return nil, err
	}
	// What is complained of must be complained of again. Who writes without being
	// held to the schema does not know.
	held := !o.controller && !o.load && o.validation != "Ignore"
	if normal, ok := out.Object["spec"].(map[string]any); ok && held && len(complaints) == 0 {
		c.defs.remember(forms, normal)
	}
	return out, nil
}

// normalizeLike is normalize for an update that leaves everything but metadata
// as it is stored: the stored form is the result's.
func (c *Cluster) normalizeLike(res *resource, cur, next *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	if res.crd != nil || !alikeButMetadata(cur.Object, next.Object) {
		return c.normalize(res, next, o)
	}
	out, err := normalizeTyped(res, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": next.Object["apiVersion"], "kind": next.Object["kind"], "metadata": next.Object["metadata"],
	}}, o)
	if err != nil {
		return nil, err
	}
	like := maps.Clone(cur.Object)
	like["metadata"] = out.Object["metadata"]
	return &unstructured.Unstructured{Object: like}, nil
}

// alikeButMetadata reports whether two objects of one version differ in their
// metadata and status at most.
func alikeButMetadata(a, b map[string]any) bool {
	own := func(k string) bool { return k == "metadata" || k == "status" }
	for k, v := range a {
		if w, ok := b[k]; !own(k) && (!ok || !kinds.Equal(v, w)) {
			return false
		}
	}
	for k := range b {
		if _, ok := a[k]; !own(k) && !ok {
			return false
		}
	}
	return true
}
