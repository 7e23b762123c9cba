package sim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/plain"
)

// Load brings objects in as an administrator with a backup would: status, uid,
// creation time and managedFields that an object has are kept, defaults are
// filled in, and nothing is injected unless Options.InjectOnLoad. It takes
// CustomResourceDefinitions first, then Namespaces, then the rest in order;
// an object that is there already is replaced. Owner references are made to
// name the stored owner's uid.
func (c *Cluster) Load(objs []*unstructured.Unstructured) error {
	c.lock()
	defer c.unlock()
	rank := func(o *unstructured.Unstructured) int {
		switch o.GetKind() {
		case "CustomResourceDefinition":
			return 0
		case "Namespace":
			return 1
		}
		return 2
	}
	sorted := slices.Clone(objs)
	slices.SortStableFunc(sorted, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	for _, o := range sorted {
		if err := c.loadOne(o.DeepCopy()); err != nil {
			return err
		}
	}
	c.settle()
	return nil
}

func (c *Cluster) loadOne(o *unstructured.Unstructured) error {
	gvk := o.GroupVersionKind()
	what := strings.ToLower(gvk.GroupKind().String()) + "/" + o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		what += " in " + ns
	}
	res := c.reg.byKind[gvk.GroupKind()]
	if res == nil || !res.serves(gvk.Version) {
		return fmt.Errorf("%s: the simulated cluster does not serve %s; load its CustomResourceDefinition too", what, gvk)
	}
	ns := o.GetNamespace()
	if res.namespaced && ns == "" {
		ns = "default"
	}
	if !res.namespaced {
		ns = ""
	}
	refs := o.GetOwnerReferences()
	for i, r := range refs {
		if k, ok := c.refKey(r, ns); ok {
			if e := c.st.get(k); e != nil {
				refs[i].UID = e.obj.GetUID()
			}
		}
	}
	if len(refs) > 0 {
		o.SetOwnerReferences(refs)
	}
	w := writeOptions{version: gvk.Version, manager: "load", load: true, untracked: true}
	k := objectKey{res.gr(), ns, o.GetName()}
	var err error
	if c.st.get(k) == nil {
		_, err = c.create(res.gr(), ns, o, w)
	} else {
		o.SetResourceVersion("")
		o.SetUID("")
		_, err = c.update(res.gr(), ns, o.GetName(), w, func(*unstructured.Unstructured) (*unstructured.Unstructured, error) { return o, nil })
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// ReadObjects reads all objects of a stream of YAML or JSON documents; Lists
// are taken apart. name stands for the stream in errors, which say
// name:document, counted from one.
func ReadObjects(r io.Reader, name string) ([]*unstructured.Unstructured, error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(r))
	var out []*unstructured.Unstructured
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		objs, err := readDocument(doc)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		out = append(out, objs...)
	}
}

func readDocument(doc []byte) ([]*unstructured.Unstructured, error) {
	j, err := plain.Dumped.LaxJSON(doc)
	if err != nil {
		return nil, err
	}
	if s := strings.TrimSpace(string(j)); s == "null" || s == "" {
		return nil, nil // comments only
	}
	u, err := decodeJSON(j)
	if err != nil {
		return nil, fmt.Errorf("not an object: %w", err)
	}
	if u.GetAPIVersion() == "" || u.GetKind() == "" {
		return nil, errors.New("not a Kubernetes object: apiVersion and kind are expected")
	}
	if !u.IsList() {
		if u.GetName() == "" {
			return nil, fmt.Errorf("%s without metadata.name", u.GetKind())
		}
		return []*unstructured.Unstructured{u}, nil
	}
	list, err := u.ToList()
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, nil
}

// ReadFiles reads a file of objects, or all .yaml, .yml and .json files of a
// folder and those below it, in the order of their names.
func ReadFiles(fsys fs.FS, root string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	err := fs.WalkDir(fsys, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ext := path.Ext(p)
		if d.IsDir() || (p != root && ext != ".yaml" && ext != ".yml" && ext != ".json") {
			return nil
		}
		f, err := fsys.Open(p)
		if err != nil {
			return err
		}
		objs, err := ReadObjects(f, p)
		out = append(out, objs...)
		return errors.Join(err, f.Close())
	})
	return out, err
}
