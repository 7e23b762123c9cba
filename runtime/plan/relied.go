package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/twin"
)

// What a plan relies on an object for (Relied.What):
//
//	exists    that it is there or is not
//	whole     everything but its status and what the server writes: it is deleted or replaced
//	set       the values of the fields that the plan sets, Mask saying which
//	template  its pod template, but for the mark of a restart: it is restarted
//	labels    the labels of a namespace that decide on injection
//	webhooks  who is injected or validated by whom; not the CA bundle and the
//	          failure policy, which istiod itself keeps
//	spec      its spec: a PodDisruptionBudget
//	data      its data: the injector's or the mesh's ConfigMap
//	names     which objects of the kind there are (in the namespace)
//
// Not relied on, so that they may be otherwise: resourceVersions and who owns
// which field; status; the number of replicas, unless the plan sets it; which
// pods there are.
const (
	relyExists   = "exists"
	relyWhole    = "whole"
	relySet      = "set"
	relyTemplate = "template"
	relyLabels   = "labels"
	relyWebhooks = "webhooks"
	relySpec     = "spec"
	relyData     = "data"
	relyNames    = "names"
)

const absent = "absent"

// rely writes down what the plan relies on.
func (g *gatherer) rely(_ context.Context, t *twin.Twin, _ *cluster.Client) error {
	b := &reliance{plan: g.plan, seen: map[string]bool{}}
	for _, ef := range g.originals {
		if err := b.effect(ef); err != nil {
			return err
		}
	}
	namespaces := map[string]bool{}
	for _, r := range g.plan.Restarts {
		namespaces[r.Namespace] = true
	}
	for _, o := range t.Origins(grNamespaces) {
		if injects(o) || namespaces[o.GetName()] {
			b.add(cluster.RefOf(o), relyLabels, nil, o)
		}
	}
	for _, gr := range []schema.GroupResource{grMutating, grValidating} {
		list := t.Origins(gr)
		for _, o := range list {
			b.add(cluster.RefOf(o), relyWebhooks, nil, o)
		}
		if len(list) > 0 {
			r := cluster.RefOf(list[0])
			r.Name = ""
			b.names(r, list)
		}
	}
	budgets := map[string][]*unstructured.Unstructured{}
	for _, o := range t.Origins(grBudgets) {
		if namespaces[o.GetNamespace()] {
			b.add(cluster.RefOf(o), relySpec, nil, o)
			budgets[o.GetNamespace()] = append(budgets[o.GetNamespace()], o)
		}
	}
	for ns := range namespaces {
		b.names(cluster.Ref{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget", Namespace: ns}, budgets[ns])
	}
	for _, o := range t.Origins(grConfigMaps) {
		if isInjector(o.GetName()) {
			b.add(cluster.RefOf(o), relyData, nil, o)
		}
	}
	g.plan.Relied = sorted(g.plan.Relied)
	return b.err
}

// sorted orders what is relied on by object and reason.
func sorted(relied []Relied) []Relied {
	type keyed struct {
		key string
		Relied
	}
	all := make([]keyed, len(relied))
	for i, r := range relied {
		all[i] = keyed{r.Ref.ID() + " " + r.What, r}
	}
	slices.SortFunc(all, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	for i, k := range all {
		relied[i] = k.Relied
	}
	return relied
}

func isInjector(name string) bool {
	return name == "istio" || strings.HasPrefix(name, "istio-sidecar-injector") || strings.HasPrefix(name, "istio-") && !strings.HasPrefix(name, "istio-ca-root-cert")
}

func injects(ns *unstructured.Unstructured) bool {
	for k := range ns.GetLabels() {
		if k == "istio-injection" || strings.HasPrefix(k, "istio.io/") {
			return true
		}
	}
	return false
}

// reliance collects what is relied on, each object once for each reason.
type reliance struct {
	plan *Plan
	seen map[string]bool
	err  error
}

// effect relies on what the first effect on an object found: what later ones
// find is of the plan's own making.
func (b *reliance) effect(ef *effect.Effect) error {
	id := ef.Ref.ID()
	if ef.Verb == effect.Evict {
		if ef.Before == nil {
			return nil
		}
		return nil // pods come and go; their workload is under another reason
	}
	if b.seen[id] {
		return nil
	}
	b.seen[id] = true
	if ef.Absent || ef.Before == nil && ef.HoldsSecret() {
		what := (*unstructured.Unstructured)(nil)
		if !ef.Absent {
			what = &unstructured.Unstructured{Object: map[string]any{}}
		}
		b.add(ef.Ref, relyExists, nil, what)
		return b.err
	}
	switch {
	case ef.Verb == effect.Delete, ef.Verb == effect.Replace, ef.Verb == effect.Patch && strings.Contains(ef.PatchType, "json-patch"):
		b.add(ef.Ref, relyWhole, nil, ef.Before)
	case ef.Class == effect.Restart:
		b.add(ef.Ref, relyTemplate, nil, ef.Before)
	default:
		body, err := plain.Decode(ef.Body)
		if err != nil {
			return fmt.Errorf("%s: body: %w", ef.Ref, err)
		}
		b.add(ef.Ref, relySet, maskOf(body), ef.Before)
	}
	return b.err
}

func (b *reliance) add(ref cluster.Ref, what string, mask any, o *unstructured.Unstructured) {
	if k := ref.ID() + "\x00" + what; b.seen[k] {
		return
	} else {
		b.seen[k] = true
	}
	r := Relied{Ref: ref, What: what, Mask: mask}
	if err := r.fill(o); err != nil && b.err == nil {
		b.err = err
	}
	b.plan.Relied = append(b.plan.Relied, r)
}

func (b *reliance) names(ref cluster.Ref, list []*unstructured.Unstructured) {
	r := Relied{Ref: ref, What: relyNames}
	if err := r.fillNames(list); err != nil && b.err == nil {
		b.err = err
	}
	b.plan.Relied = append(b.plan.Relied, r)
}

// fill sets digest and fields from an object; nil where it does not exist.
func (r *Relied) fill(o *unstructured.Unstructured) error {
	if o == nil {
		r.Digest, r.Fields = absent, nil
		return nil
	}
	v := r.extract(o)
	raw, err := cluster.CanonicalJSON(v)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Ref, err)
	}
	r.Digest, r.Fields = digestOf(raw), nil
	if r.Ref.Kind != "Secret" && len(raw) <= maxFields {
		r.Fields = json.RawMessage(raw)
	}
	return nil
}

// maxFields is how much of an object is kept to be shown; the digest is of all.
const maxFields = 64 << 10

func (r *Relied) fillNames(list []*unstructured.Unstructured) error {
	names := make([]string, len(list))
	for i, o := range list {
		names[i] = o.GetName()
	}
	slices.Sort(names)
	raw, err := cluster.CanonicalJSON(names)
	if err != nil {
		return err
	}
	r.Digest, r.Fields = digestOf(raw), json.RawMessage(raw)
	return nil
}

// extract takes from an object the fields that are relied on.
func (r *Relied) extract(o *unstructured.Unstructured) any {
	if r.Ref.Kind == "Secret" && r.What != relyExists {
		return map[string]any{"type": o.Object["type"], "labels": o.GetLabels()}
	}
	n := cluster.Normal(o, cluster.NormalizeOptions{}).Object // only ever read
	switch r.What {
	case relyExists:
		return true
	case relySet:
		return masked(n, r.Mask)
	case relyTemplate:
		t, _, _ := unstructured.NestedMap(n, "spec", "template")
		unstructured.RemoveNestedField(t, "metadata", "annotations", effect.AnnotationRestart)
		if a, ok, _ := unstructured.NestedMap(t, "metadata", "annotations"); ok && len(a) == 0 {
			unstructured.RemoveNestedField(t, "metadata", "annotations")
		}
		return t
	case relyLabels:
		out := map[string]any{}
		for k, v := range o.GetLabels() {
			if k == "istio-injection" || strings.HasPrefix(k, "istio.io/") {
				out[k] = v
			}
		}
		return out
	case relyWebhooks:
		return webhooks(n)
	case relySpec:
		return n["spec"]
	case relyData:
		return n["data"]
	}
	return n
}

func webhooks(n map[string]any) any {
	out := []any{}
	list, _ := n["webhooks"].([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		client, _ := m["clientConfig"].(map[string]any)
		out = append(out, map[string]any{
			"name": m["name"], "rules": m["rules"], "namespaceSelector": m["namespaceSelector"], "objectSelector": m["objectSelector"],
			"service": client["service"], "url": client["url"], "matchConditions": m["matchConditions"], "reinvocationPolicy": m["reinvocationPolicy"],
		})
	}
	labels, _, _ := unstructured.NestedMap(n, "metadata", "labels")
	return map[string]any{"webhooks": out, "rev": labels["istio.io/rev"], "tag": labels["istio.io/tag"]}
}

// maskOf says which fields a body sets: true for a field that is set as a whole,
// a map for one within which some are. In a list of named items each item is a
// field of its own, under "[NAME]".
func maskOf(v any) any {
	switch x := v.(type) {
	case map[string]any:
		if len(x) == 0 {
			return true
		}
		out := map[string]any{}
		for k, v := range x {
			out[k] = maskOf(v)
		}
		return out
	case []any:
		named, ok := byName(x)
		if !ok {
			return true
		}
		out := map[string]any{}
		for k, v := range named {
			out["["+k+"]"] = maskOf(v)
		}
		return out
	}
	return true
}

// masked takes the fields of a mask from a value; a field that is not there is
// null.
func masked(v, mask any) any {
	m, ok := mask.(map[string]any)
	if !ok {
		return v
	}
	at, _ := v.(map[string]any)
	if list, ok := v.([]any); ok {
		named, _ := byName(list)
		at = map[string]any{}
		for k, item := range named {
			at["["+k+"]"] = item
		}
	}
	out := map[string]any{}
	for k, sub := range m {
		if k == "apiVersion" || k == "kind" || k == "status" {
			continue
		}
		out[k] = masked(at[k], sub)
	}
	return out
}

// Drift is one thing that is not as a saved plan found it.
type Drift struct {
	Subject string // "deployment.apps/web in shop: template"
	Old     string
	New     string
}

// drifts compares everything that the plan relies on with a cluster.
func (p *Plan) drifts(ctx context.Context, r cluster.Reader) ([]Drift, error) {
	var out []Drift
	for _, was := range p.Relied {
		now := Relied{Ref: was.Ref, What: was.What, Mask: was.Mask}
		if err := now.read(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", was.Ref, err)
		}
		if now.Digest != was.Digest {
			out = append(out, driftOf(was, now)...)
		}
	}
	return out, nil
}

func (r *Relied) read(ctx context.Context, from cluster.Reader) error {
	if r.What == relyNames {
		res, err := from.Resolve(ctx, r.Ref.Kind+"."+r.Ref.Version+"."+r.Ref.Group)
		if err != nil {
			return err
		}
		var list []*unstructured.Unstructured
		err = from.List(ctx, res, cluster.ListOptions{Namespace: r.Ref.Namespace}, func(o *cluster.Object) error {
			list = append(list, o)
			return nil
		})
		if err != nil {
			return err
		}
		return r.fillNames(list)
	}
	o, err := from.Get(ctx, r.Ref)
	if errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind) {
		return r.fill(nil)
	}
	if err != nil {
		return err
	}
	return r.fill(o)
}

// driftOf words the difference, field by field where both sides are at hand.
func driftOf(was, now Relied) []Drift {
	subject := was.Ref.String() + ": " + was.What
	if was.What == relyNames {
		subject = strings.ToLower(was.Ref.Kind) + "s"
		if was.Ref.Namespace != "" {
			subject += " in " + was.Ref.Namespace
		}
	}
	a, b := generic(was.Fields), generic(now.Fields)
	if a == nil || b == nil || was.What == relyNames {
		return []Drift{{Subject: subject, Old: shown(was), New: shown(now)}}
	}
	var fields []Field
	compare("", a, b, &fields)
	var out []Drift
	for _, f := range fields {
		out = append(out, Drift{Subject: subject + " " + f.Path, Old: brief(f.Old), New: brief(f.New)})
	}
	if len(out) == 0 {
		out = append(out, Drift{Subject: subject, Old: was.Digest, New: now.Digest})
	}
	return out
}

func shown(r Relied) string {
	if r.Digest == absent || r.Fields == nil {
		return r.Digest
	}
	if r.What == relyNames {
		return brief(generic(r.Fields))
	}
	return "there"
}

func generic(v any) any {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var out any
	if json.Unmarshal(raw, &out) != nil {
		return nil
	}
	return out
}

// brief is a value in one line.
func brief(v any) string {
	if v == nil {
		return "none"
	}
	raw, err := cluster.CanonicalJSON(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	s := strings.Trim(string(raw), `"`)
	if r := []rune(s); len(r) > 80 {
		return string(r[:79]) + "…"
	}
	return s
}
