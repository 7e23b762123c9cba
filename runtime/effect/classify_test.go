package effect

import (
	"encoding/json"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

func object(t *testing.T, kind, name, labels, spec string) *cluster.Object {
	t.Helper()
	version := "v1"
	switch {
	case kind == "Deployment" || kind == "DaemonSet":
		version = "apps/v1"
	case strings.HasSuffix(kind, "WebhookConfiguration"):
		version = "admissionregistration.k8s.io/v1"
	case kind == "VirtualService":
		version = "networking.istio.io/v1"
	case kind == "CustomResourceDefinition":
		version = "apiextensions.k8s.io/v1"
	}
	o := &cluster.Object{}
	js := `{"apiVersion":"` + version + `","kind":"` + kind + `","metadata":{"name":"` + name + `","namespace":"n","labels":{` + labels + `}},"spec":{` + spec + `}}`
	if err := o.UnmarshalJSON([]byte(js)); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestClassify(t *testing.T) {
	const (
		merge     = "application/merge-patch+json"
		list      = "application/json-patch+json"
		restart   = `{"spec":{"template":{"metadata":{"annotations":{"rutter.dev/restart":"x"}}}}}`
		restart2  = `{"spec":{"template":{"metadata":{"annotations":{"rutter.dev/restart":"x"}},"spec":{"containers":[{"name":"a","image":"evil"}]}}}}`
		annotated = `{"spec":{"template":{"metadata":{"annotations":{"other":"x"}}}}}`
	)
	v1, v2 := `"template":{"spec":{"image":"1"}}`, `"template":{"spec":{"image":"2"}}`
	cases := []struct {
		name          string
		verb          Verb
		before, after *cluster.Object
		patchType     string
		body          string
		want          Class
	}{
		{"restart", Patch, object(t, "Deployment", "web", "", v1), object(t, "Deployment", "web", "", v2), merge, restart, Restart},
		{"image change that claims to be a restart", Patch, object(t, "Deployment", "istio-x", `"install.operator.istio.io/owning-resource":"i"`, v1), nil, merge, restart2, ControlPlane},
		{"image change of a workload", Patch, object(t, "Deployment", "web", "", v1), object(t, "Deployment", "web", "", v2), merge, restart2, Restart},
		{"another annotation of the template rolls it, too", Patch, object(t, "Deployment", "web", "", v1), object(t, "Deployment", "web", "", v2), merge, annotated, Restart},
		{"a list of operations without a forecast", Patch, object(t, "Deployment", "web", "", v1), nil, list, `[{"op":"remove","path":"/spec"}]`, Restart},
		{"apply of another template", Apply, object(t, "Deployment", "web", "", v1), object(t, "Deployment", "web", "", v2), "", "", Restart},
		{"apply of the same template", Apply, object(t, "Deployment", "web", "", v1), object(t, "Deployment", "web", `"a":"b"`, v1), "", "", Plain},
		{"new workload", Create, nil, object(t, "Deployment", "web", "", v1), "", "", Plain},
		{"restart of istiod", Patch, object(t, "Deployment", "istiod", "", v1), nil, merge, restart, ControlPlane},
		{"patch of istiod by name", Patch, object(t, "Deployment", "istiod-1-31", "", v1), nil, merge, annotated, ControlPlane},
		{"patch that takes istiod's marks away", Patch, object(t, "DaemonSet", "cni", `"k8s-app":"istio-cni-node"`, v1), nil, merge, `{"metadata":{"labels":{"k8s-app":"x"}}}`, ControlPlane},
		{"create of istiod", Create, nil, object(t, "Deployment", "x", `"app":"istiod"`, v1), "", "", ControlPlane},
		{"gateway", Apply, object(t, "Deployment", "gw", `"istio":"ingressgateway"`, v1), object(t, "Deployment", "gw", "", v2), "", "", Gateway},
		{"restart of a gateway", Patch, object(t, "Deployment", "gw", `"istio":"ingressgateway"`, v1), nil, merge, restart, Restart},
		{"webhook deleted", Delete, object(t, "MutatingWebhookConfiguration", "w", "", ""), nil, "", "", Webhook},
		{"tag", Apply, nil, object(t, "MutatingWebhookConfiguration", "w", `"istio.io/tag":"prod"`, ""), "", "", Tag},
		{"tag that loses its mark", Patch, object(t, "MutatingWebhookConfiguration", "w", `"istio.io/tag":"prod"`, ""), nil, merge, `{"metadata":{"labels":{"istio.io/tag":""}}}`, Tag},
		{"tag that loses its mark by null", Patch, object(t, "MutatingWebhookConfiguration", "w", `"istio.io/tag":"prod"`, ""), nil, merge, `{"metadata":{"labels":{"istio.io/tag":null}}}`, Tag},
		{"validating webhook", Create, nil, object(t, "ValidatingWebhookConfiguration", "w", "", ""), "", "", Webhook},
		{"CRD deleted", Delete, object(t, "CustomResourceDefinition", "x", "", ""), nil, "", "", CRD},
		{"virtual service", Delete, object(t, "VirtualService", "x", "", ""), nil, "", "", MeshConfig},
		{"Secret cacerts", Create, nil, object(t, "Secret", "cacerts", "", ""), "", "", MeshConfig},
		{"Secret of a workload", Create, nil, object(t, "Secret", "s", "", ""), "", "", Plain},
		{"mesh config", Replace, object(t, "ConfigMap", "istio-1-31", "", ""), object(t, "ConfigMap", "istio-1-31", "", ""), "", "", MeshConfig},
		{"injection label", Patch, object(t, "Namespace", "n", "", ""), object(t, "Namespace", "n", `"istio.io/rev":"x"`, ""), merge, `{}`, Relabel},
		{"injection label taken away", Patch, object(t, "Namespace", "n", `"istio-injection":"enabled"`, ""), object(t, "Namespace", "n", "", ""), merge, `{}`, Relabel},
		{"another label", Patch, object(t, "Namespace", "n", "", ""), object(t, "Namespace", "n", `"team":"x"`, ""), merge, `{}`, Plain},
		{"namespace patched blindly", Patch, object(t, "Namespace", "n", "", ""), nil, list, `[]`, Relabel},
		{"namespace deleted", Delete, object(t, "Namespace", "n", "", ""), nil, "", "", Relabel},
		{"pod deleted", Delete, object(t, "Pod", "p", "", ""), nil, "", "", Eviction},
		{"pod evicted", Evict, object(t, "Pod", "p", "", ""), nil, "", "", Eviction},
		{"role of the install", Apply, nil, object(t, "Service", "x", `"operator.istio.io/component":"Pilot"`, ""), "", "", ControlPlane},
		{"anything", Apply, nil, object(t, "ConfigMap", "x", "", ""), "", "", Plain},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := &Effect{Verb: c.verb, Before: c.before, After: c.after, Absent: c.before == nil, PatchType: c.patchType, Body: json.RawMessage(c.body)}
			switch {
			case c.before != nil:
				e.Ref = cluster.RefOf(c.before)
			default:
				e.Ref = cluster.RefOf(c.after)
			}
			if got := Classify(e); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A kind of that name in another group is no pod: it must not have the few
// gates of an eviction.
func TestClassifyLooksAtTheGroup(t *testing.T) {
	e := &Effect{Verb: Delete, Ref: cluster.Ref{Group: "security.istio.io", Version: "v1", Kind: "Pod", Name: "x"}}
	if got := Classify(e); got != MeshConfig {
		t.Errorf("got %s", got)
	}
}

func TestMisdirected(t *testing.T) {
	o := object(t, "ConfigMap", "a", "", "")
	e, err := ApplyOf(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Misdirected(); got != "" {
		t.Errorf("got %q", got)
	}
	e.Ref.Name = "b"
	if e.Misdirected() == "" {
		t.Error("a body for another object passes")
	}
}

func TestRedact(t *testing.T) {
	e := &Effect{
		Ref: cluster.Ref{Version: "v1", Kind: "Secret", Name: "s"}, Verb: Apply,
		Body: json.RawMessage(`{"data":{"a":"Y2FuYXJ5LWE="},"stringData":{"b":"canary-b"}}`),
	}
	if got := e.Redact("no: Y2FuYXJ5LWE= canary-a canary-b Y2FuYXJ5LWI= end"); strings.Contains(got, "anary") || strings.Contains(got, "Y2F") || !strings.HasSuffix(got, "end") {
		t.Errorf("got %q", got)
	}
	e = &Effect{Ref: e.Ref, Verb: Patch, Body: json.RawMessage(`[{"op":"add","path":"/data/a","value":"Y2FuYXJ5LWE="}]`)}
	if got := e.Redact("bad Y2FuYXJ5LWE="); strings.Contains(got, "Y2F") {
		t.Errorf("got %q", got)
	}
}
