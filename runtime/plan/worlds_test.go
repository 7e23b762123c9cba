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
`)
	l.patch(cluster.Ref{Version: "v1", Kind: "Namespace", Name: "shop"}, `{"metadata":{"labels":{"istio.io/rev":"x","team":"a","tier":"silver"}}}`)
	p := l.planned()
	live := map[string]*unstructured.Unstructured{}
	for _, o := range l.sim.Objects() {
		live[cluster.RefOf(o).ID()] = o
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	noticed, let := 0, 0
	for n := 0; n < 10_000; {
		was := p.Relied[rnd.IntN(len(p.Relied))]
		o := live[was.Ref.ID()]
		if o == nil || was.What == "names" || was.What == "webhooks" {
			continue
		}
		n++
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
}
