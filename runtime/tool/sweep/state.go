package sweep

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

// derived kinds are made by controllers, under names that depend on when.
var derived = []string{"Pod", "ReplicaSet", "ControllerRevision", "Event", "Lease", "Endpoints", "EndpointSlice", "Node"}

// stateOf is the normal form of everything that somebody wrote, and what runs
// in every workload's pods. Addresses that the server gave to Services are left
// out, but of those in had: which one is free depends on how often it was asked.
func stateOf(c *sim.Cluster, had map[string]bool, known forms) map[string]string {
	out := map[string]string{}
	owner := map[types.UID]*unstructured.Unstructured{}
	objects := c.Stored()
	for _, o := range objects {
		owner[o.GetUID()] = o
		if slices.Contains(derived, o.GetKind()) {
			continue
		}
		f, ok := known[o]
		if !ok {
			f = formOf(o, had)
		}
		out[f.name] = f.normal
		if f.owners != "" {
			out[owned+f.name] = f.owners
		}
	}
	for _, o := range objects {
		if o.GetKind() != "Pod" {
			continue
		}
		top := o
		for refs := top.GetOwnerReferences(); len(refs) > 0 && owner[refs[0].UID] != nil; refs = top.GetOwnerReferences() {
			top = owner[refs[0].UID]
		}
		ready, _, _ := cluster.Ready(o)
		key := "pods of " + cluster.RefOf(top).String()
		lines := append(strings.Split(out[key], "\n"), fmt.Sprintf("ready %v: %v", ready, images(o)))
		slices.Sort(lines)
		out[key] = strings.Join(lines, "\n")
	}
	return out
}

// form is what stateOf tells of one object.
type form struct {
	name   string
	normal string
	owners string
}

func formOf(o *unstructured.Unstructured, had map[string]bool) form {
	name := cluster.RefOf(o).String()
	n := cluster.Normalize(o, cluster.NormalizeOptions{})
	if o.GetKind() == "Service" && !had[name] {
		n = unaddressed(n)
	}
	b, err := cluster.CanonicalJSON(n.Object)
	if err != nil {
		b = []byte(err.Error())
	}
	return form{name: name, normal: string(b), owners: ownersOf(o)}
}

// forms are those of objects as cases find them. A stored object is never
// changed, and clones of a cluster share it, so that what a case leaves alone is
// known by its address. They are learned before the first case, and only read
// from then on.
type forms map[*unstructured.Unstructured]form

func (f forms) learn(c *sim.Cluster, had map[string]bool) {
	for _, o := range c.Stored() {
		if _, ok := f[o]; !ok && !slices.Contains(derived, o.GetKind()) {
			f[o] = formOf(o, had)
		}
	}
}

// services are the names of the Services that are there.
func services(c *sim.Cluster) map[string]bool {
	out := map[string]bool{}
	for _, o := range c.Stored() {
		if o.GetKind() == "Service" {
			out[cluster.RefOf(o).String()] = true
		}
	}
	return out
}

// unaddressed is a Service without what the server gave it.
func unaddressed(svc *unstructured.Unstructured) *unstructured.Unstructured {
	svc = svc.DeepCopy()
	spec, ok := svc.Object["spec"].(map[string]any)
	if !ok || spec["clusterIP"] == "None" {
		return svc
	}
	for _, field := range []string{"clusterIP", "clusterIPs", "healthCheckNodePort"} {
		delete(spec, field)
	}
	ports, _ := spec["ports"].([]any)
	for _, p := range ports {
		if m, ok := p.(map[string]any); ok {
			delete(m, "nodePort")
		}
	}
	return svc
}

// owned begins the key under which the field owners of an object are.
const owned = "field owners of "

// ownersOf is who owns which fields of an object, one manager a line. Left out
// is what controllers own of a status, which depends on when, and the marks that
// a run leaves, which are no part of an object's normal form either.
func ownersOf(o *unstructured.Unstructured) string {
	var lines []string
	for _, m := range o.GetManagedFields() {
		if m.Subresource != "" || m.FieldsV1 == nil {
			continue
		}
		fields := m.FieldsV1.GetRawString()
		if strings.Contains(fields, marks) {
			fields = unmarked(fields)
		}
		if fields != "" {
			lines = append(lines, fmt.Sprintf("%s %s %s %s", m.Manager, m.Operation, m.APIVersion, fields))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// marks begin the keys of the annotations by which a run knows its own.
const marks = "rutter.dev/"

// unmarked are the fields but the marks, as paths.
func unmarked(fields string) string {
	all := fieldpath.NewSet()
	if err := all.FromJSON(strings.NewReader(fields)); err != nil {
		return err.Error()
	}
	var out []string
	all.Leaves().Iterate(func(p fieldpath.Path) {
		if s := p.String(); !strings.Contains(s, marks) {
			out = append(out, s)
		}
	})
	return strings.Join(out, " ")
}

func images(o *unstructured.Unstructured) []string {
	var out []string
	for _, field := range []string{"initContainers", "containers"} {
		cs, _, _ := unstructured.NestedSlice(o.Object, "spec", field)
		for _, c := range cs {
			m, _ := c.(map[string]any)
			out = append(out, fmt.Sprint(m["image"]))
		}
	}
	return out
}

// most bounds the differences that are told.
const most = 4

// compare tells how a cluster is not as it should be.
func compare(got, want map[string]string) []string {
	var out []string
	names := maps.Clone(got)
	maps.Copy(names, want)
	for _, k := range slices.Sorted(maps.Keys(names)) {
		g, is := got[k]
		w, should := want[k]
		switch {
		case !is:
			out = append(out, k+" is not there")
		case !should && strings.HasPrefix(k, owned):
			// An object of nobody, which can't be made nobody's again.
		case !should:
			out = append(out, k+" should not be there")
		case g != w:
			out = append(out, k+" differs: "+around(g, w))
		}
	}
	return few(out)
}

func few(out []string) []string {
	if n := len(out) - most; n > 0 {
		return append(out[:most:most], fmt.Sprintf("and %d more", n))
	}
	return out
}

// around shows where two texts part.
func around(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	cut := func(s string) string { return s[max(0, i-40):min(len(s), i+80)] }
	return fmt.Sprintf("…%s… instead of …%s…", cut(got), cut(want))
}

// differences tells of two sorted lists what one has more often.
func differences(got, want []string) []string {
	n := map[string]int{}
	for _, s := range got {
		n[s]++
	}
	for _, s := range want {
		n[s]--
	}
	var out []string
	for _, s := range slices.Sorted(maps.Keys(n)) {
		switch {
		case n[s] > 0:
			out = append(out, fmt.Sprintf("made %d times too often: %s", n[s], s))
		case n[s] < 0:
			out = append(out, fmt.Sprintf("made %d times too few: %s", -n[s], s))
		}
	}
	return few(out)
}

// shortest is the length from which a secret is told from other text.
const shortest = 8

// secrets are the values of all Secrets, plain and as they are written down, but
// certificates: istiod writes those of its CA into every namespace and webhook.
func secrets(c *sim.Cluster) [][]byte {
	var out [][]byte
	for _, o := range c.Stored() {
		if o.GetKind() != "Secret" {
			continue
		}
		data, _, _ := unstructured.NestedStringMap(o.Object, "data")
		for k, v := range data {
			if strings.HasSuffix(k, "cert.pem") || strings.HasSuffix(k, "cert-chain.pem") || strings.HasSuffix(k, ".crt") {
				continue
			}
			plain, err := base64.StdEncoding.DecodeString(v)
			if err == nil && len(plain) >= shortest {
				out = append(out, plain, []byte(v))
			}
		}
	}
	return out
}

// secrets demands that no output and no file holds a Secret's value.
func (ref *reference) secrets(w *world) {
	for _, n := range ref.needle {
		if bytes.Contains(w.output.Bytes(), n) {
			w.breaks("an output tells a secret")
		}
		w.disk.Contents(func(path string, b []byte) {
			if bytes.Contains(b, n) {
				w.breaks("%s holds a secret", path)
			}
		})
	}
}
