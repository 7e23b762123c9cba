package plan_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plan"
)

// leaf is one scalar within an object.
type leaf struct {
	path []string // keys; "[NAME]" or "[N]" for the items of lists
	set  func(any)
	was  any
}

func leavesOf(v any, path []string, set func(any)) []leaf {
	var out []leaf
	switch x := v.(type) {
	case map[string]any:
		for k, item := range x {
			out = append(out, leavesOf(item, append(slices.Clone(path), k), func(v any) { x[k] = v })...)
		}
	case []any:
		for i, item := range x {
			name := fmt.Sprintf("[%d]", i)
			if m, ok := item.(map[string]any); ok && m["name"] != nil {
				name = fmt.Sprintf("[%s]", m["name"])
			}
			out = append(out, leavesOf(item, append(slices.Clone(path), name), func(v any) { x[i] = v })...)
		}
	default:
		out = append(out, leaf{path, set, v})
	}
	return out
}

func other(v any) any {
	switch x := v.(type) {
	case string:
		return x + "x"
	case bool:
		return !x
	case float64:
		return x + 1
	case int64:
		return x + 1
	}
	return "x"
}

// counts says whether a field is one that is relied on, by the words of the
// documentation rather than by the code.
func counts(what string, mask any, path []string) bool {
	dotted := strings.Join(path, ".")
	if path[0] == "status" || path[0] == "apiVersion" || path[0] == "kind" {
		return what == "whole" && path[0] != "status"
	}
	server := []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"}
	if path[0] == "metadata" && slices.Contains(server, path[1]) {
		return false
	}
	switch what {
	case "exists":
		return false
	case "whole":
		return dotted != "metadata.annotations.deployment.kubernetes.io/revision"
	case "template":
		return strings.HasPrefix(dotted, "spec.template.") && path[len(path)-1] != "rutter.dev/restart"
	case "spec", "data":
		return path[0] == what
	case "webhooks":
		if dotted == "metadata.labels.istio.io/rev" || dotted == "metadata.labels.istio.io/tag" {
			return true
		}
		decides := []string{"name", "rules", "namespaceSelector", "objectSelector", "matchConditions", "reinvocationPolicy"}
		return path[0] == "webhooks" && (slices.Contains(decides, path[2]) || path[2] == "clientConfig" && path[3] != "caBundle")
	case "labels":
		return len(path) == 3 && path[1] == "labels" && strings.HasPrefix(path[2], "istio")
	case "set":
		at := mask
		for _, k := range path {
			m, ok := at.(map[string]any)
			if !ok {
				return true // within a field that is set as a whole
			}
			if at, ok = m[k]; !ok {
				return false
			}
		}
		return true
	}
	return false
}

// TestWorldsThatDiffer changes one field of an object 10,000 times: a plan that
// relies on the field notices, and one that does not is not held up.
func TestWorldsThatDiffer(t *testing.T) {
	l := newLab(t)
	l.sim = l.cluster(objects + `
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-sidecar-injector, namespace: istio-system}, data: {values: "{}", config: x}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: more, labels: {istio.io/rev: x, team: a}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-revision-tag-x, labels: {istio.io/rev: default, istio.io/tag: x, team: a}, annotations: {a: b}}
webhooks:
- name: rev.namespace.sidecar-injector.istio.io
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: Ignore
  timeoutSeconds: 3
  reinvocationPolicy: Never
  clientConfig: {caBundle: YQ==, service: {name: istiod, namespace: istio-system, path: /inject, port: 443}}
  namespaceSelector: {matchLabels: {istio.io/rev: x}}
  objectSelector: {matchLabels: {a: b}}
  matchConditions: [{name: c, expression: "true"}]
  rules: [{operations: [CREATE], apiGroups: [example.org], apiVersions: [v1], resources: [things]}]
`)
	l.patch(cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}, `{"metadata":{"labels":{"istio.io/rev":"x","team":"a","tier":"silver"}}}`)
	p := l.planned()
	live := map[string]*unstructured.Unstructured{}
	for _, o := range l.sim.Objects() {
		live[cluster.RefOf(o).ID()] = o
	}
	// Nothing is injected in this rehearsal, so that it has not looked at the injector.
	injector := plan.Relied{Ref: cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "istio-system", Name: "istio-sidecar-injector"}, What: "data"}
	if err := injector.Refill(live[injector.Ref.ID()]); err != nil {
		t.Fatal(err)
	}
	p.Relied = append(p.Relied, injector)
	rnd := rand.New(rand.NewPCG(5, 6))
	noticed, let, tried := 0, 0, map[string]int{}
	for n := 0; n < 10_000; {
		was := p.Relied[rnd.IntN(len(p.Relied))]
		if was.What == "names" {
			n++
			tried[was.What]++
			otherNames(t, rnd, was, live)
			continue
		}
		o := live[was.Ref.ID()]
		if o == nil {
			continue
		}
		n++
		tried[was.What]++
		o = o.DeepCopy()
		all := leavesOf(o.Object, nil, nil)
		at := all[rnd.IntN(len(all))]
		at.set(other(at.was))
		var mask any
		if raw, err := json.Marshal(was.Mask); err != nil || json.Unmarshal(raw, &mask) != nil {
			t.Fatal(err)
		}
		now := was
		if err := now.Refill(o); err != nil {
			t.Fatal(err)
		}
		want := counts(was.What, mask, at.path)
		if got := now.Digest != was.Digest; got != want {
			t.Errorf("%s (%s): %s changed: noticed %v, want %v", was.Ref, was.What, strings.Join(at.path, "."), got, want)
			if t.Failed() && n > 50 {
				return
			}
		}
		if want {
			noticed++
		} else {
			let++
		}
	}
	if noticed < 500 || let < 500 {
		t.Errorf("%d noticed, %d let pass: the test tries too little", noticed, let)
	}
	for _, what := range []string{"whole", "set", "template", "labels", "webhooks", "spec", "data", "names"} {
		if tried[what] < 100 {
			t.Errorf("%s was tried %d times only", what, tried[what])
		}
	}
}

// otherNames lets an object come or go, and lists those that are there in another
// order: the one is noticed, the other not.
func otherNames(t *testing.T, rnd *rand.Rand, was plan.Relied, live map[string]*unstructured.Unstructured) {
	t.Helper()
	var list []*unstructured.Unstructured
	for _, o := range live {
		if ref := cluster.RefOf(o); ref.Group == was.Ref.Group && ref.Kind == was.Ref.Kind && ref.Namespace == was.Ref.Namespace {
			list = append(list, o) // in the order of a map: any
		}
	}
	now := was
	if err := now.RefillNames(list); err != nil {
		t.Fatal(err)
	}
	if now.Digest != was.Digest {
		t.Fatalf("%s: the same names in another order were noticed", was.Ref)
	}
	if i := rnd.IntN(len(list) + 1); i < len(list) {
		list = slices.Delete(list, i, i+1)
	} else {
		list = append(list, &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": fmt.Sprintf("new-%d", rnd.Int())}}})
	}
	if err := now.RefillNames(list); err != nil {
		t.Fatal(err)
	}
	if now.Digest == was.Digest {
		t.Errorf("%s: an object more or less was not noticed", was.Ref)
	}
}
