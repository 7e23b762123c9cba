package lib

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"istio.io/istio/operator/pkg/component"
	"istio.io/istio/operator/pkg/manifest"
	"rutter.dev/rutter/runtime/env"
)

// Rendered is a manifest. It is shared between callers and must not be changed.
type Rendered struct {
	// Objects in the order of components (base, pilot, cni, ztunnel, ingress
	// and egress gateways), within one CustomResourceDefinitions and
	// Namespaces first, then by kind, namespace and name.
	Objects []*unstructured.Unstructured
	// YAML holds the same objects as a stream of documents.
	YAML []byte
	// Components that have objects, in that order, by their names in
	// IstioOperator ("base", "pilot", "cni", "ztunnel", "ingressGateways", "egressGateways").
	Components []string
	// Warnings of the library and of the rendering, for people.
	Warnings []string
	// Engine says what rendered it.
	Engine string
	// Version is the Istio version that was rendered.
	Version string
	// Digest is the SHA-256 of YAML, in hex.
	Digest string
	// InputDigest is the key under which the result was cached.
	InputDigest string
	// CacheNote says why the disk cache could not be used; mostly empty.
	CacheNote string
}

// componentOrder is the order in which a control plane is built up: webhooks
// and gateways need istiod, istiod needs its CRDs.
func componentOrder() []component.Name {
	return []component.Name{
		component.BaseComponentName, component.PilotComponentName, component.CNIComponentName,
		component.ZtunnelComponentName, component.IngressComponentName, component.EgressComponentName,
	}
}

// newRendered orders what the library returned: its order is random.
func newRendered(sets []manifest.ManifestSet) (*Rendered, error) {
	rank := map[component.Name]int{}
	for i, n := range componentOrder() {
		rank[n] = i
	}
	sort.SliceStable(sets, func(i, j int) bool { return rank[sets[i].Component] < rank[sets[j].Component] })
	r := &Rendered{}
	for _, set := range sets {
		if _, known := rank[set.Component]; !known {
			return nil, fmt.Errorf("component %s: its place in the order is unknown", set.Component)
		}
		if len(set.Manifests) == 0 {
			continue
		}
		objs := make([]*unstructured.Unstructured, 0, len(set.Manifests))
		for _, m := range set.Manifests {
			u, err := normalized(m.Unstructured)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", m.GetKind(), m.GetName(), err)
			}
			objs = append(objs, u)
		}
		sort.SliceStable(objs, func(i, j int) bool { return objectKey(objs[i]) < objectKey(objs[j]) })
		r.Objects = append(r.Objects, objs...)
		r.Components = append(r.Components, specName(set.Component))
	}
	return r, r.finish()
}

// normalized gives numbers the types that the Kubernetes machinery uses: the
// library's YAML decoder leaves integers as floats.
func normalized(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	b, err := json.Marshal(u.Object)
	if err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{}
	return out, out.UnmarshalJSON(b)
}

// objectKey sorts the kinds that others depend on first.
func objectKey(u *unstructured.Unstructured) string {
	rank := "2"
	switch u.GetKind() {
	case "CustomResourceDefinition":
		rank = "0"
	case "Namespace":
		rank = "1"
	}
	return strings.Join([]string{rank, u.GetKind(), u.GetNamespace(), u.GetName()}, "\x00")
}

func specName(n component.Name) string {
	for _, c := range component.AllComponents {
		if c.UserFacingName == n {
			return c.SpecName
		}
	}
	return string(n)
}

// finish fills the fields that follow from the objects.
func (r *Rendered) finish() error {
	var b bytes.Buffer
	for _, o := range r.Objects {
		y, err := yaml.Marshal(o.Object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
		b.WriteString("---\n")
		b.Write(y)
	}
	r.YAML = b.Bytes()
	r.Digest = sum(r.YAML)
	return nil
}

// cacheHead is the first line of a cached result; the objects as a JSON list
// follow in the second, the YAML in the rest.
type cacheHead struct {
	Key, Version, Engine string
	Components, Warnings []string
	JSONSum, YAMLSum     string
}

func cachePath(dir, key string) string { return filepath.Join(dir, "manifest-"+key) }

// store writes the result so that a reader sees all of it or nothing.
func (r *Rendered) store(dir, key string) error {
	objs := make([]any, len(r.Objects))
	for i, o := range r.Objects {
		objs[i] = o.Object
	}
	body, err := json.Marshal(objs)
	if err != nil {
		return err
	}
	head, err := json.Marshal(cacheHead{
		Key: key, Version: r.Version, Engine: r.Engine, Components: r.Components, Warnings: r.Warnings,
		JSONSum: sum(body), YAMLSum: r.Digest,
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return env.ReplaceFile(cachePath(dir, key), bytes.Join([][]byte{head, body, r.YAML}, []byte("\n")), 0o600)
}

// loadRendered reads and verifies a stored result. The error wraps
// os.ErrNotExist when there is none.
func loadRendered(dir, key string) (*Rendered, error) {
	b, err := os.ReadFile(cachePath(dir, key))
	if err != nil {
		return nil, err
	}
	bad := func(what string) error { return fmt.Errorf("%s: %s", cachePath(dir, key), what) }
	parts := bytes.SplitN(b, []byte("\n"), 3)
	if len(parts) != 3 {
		return nil, bad("cut short")
	}
	var head cacheHead
	if err := json.Unmarshal(parts[0], &head); err != nil {
		return nil, bad("head: " + err.Error())
	}
	if head.Key != key || head.JSONSum != sum(parts[1]) || head.YAMLSum != sum(parts[2]) {
		return nil, bad("checksums differ")
	}
	r := &Rendered{
		YAML: parts[2], Components: head.Components, Warnings: head.Warnings,
		Engine: head.Engine, Version: head.Version, Digest: head.YAMLSum, InputDigest: key,
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(parts[1], &raw); err != nil {
		return nil, bad("objects: " + err.Error())
	}
	for _, o := range raw {
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(o); err != nil {
			return nil, bad("objects: " + err.Error())
		}
		r.Objects = append(r.Objects, u)
	}
	return r, nil
}
