package impact_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/impact"
	runtimemesh "rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/twin"
)

func labelled(ns string, set map[string]any) func(context.Context, *cluster.Client) ([]impact.Change, error) {
	return func(context.Context, *cluster.Client) ([]impact.Change, error) {
		ch, err := impact.Label(cluster.Ref{Version: "v1", Kind: "Namespace", Name: ns}, set)
		return []impact.Change{ch}, err
	}
}

func deleted(ref cluster.Ref) func(context.Context, *cluster.Client) ([]impact.Change, error) {
	return func(context.Context, *cluster.Client) ([]impact.Change, error) {
		return []impact.Change{impact.Delete(ref)}, nil
	}
}

func injectorValues(values string) string {
	return `{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-sidecar-injector, namespace: istio-system}, data: {config: "templates: {}", values: '` + values + `'}}`
}

func crd(name string) cluster.Ref {
	return cluster.Ref{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Name: name}
}

// One change of each kind: what it makes anew now, later and never.
func TestKindsOfChanges(t *testing.T) {
	for name, c := range map[string]struct {
		changes func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error)
		want    []string
	}{
		"a tag moves": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, strings.TrimPrefix(hook("istio-revision-tag-prod", "1-31-0", "prod", "istio.io/rev", "prod"), "\n---\n"), impact.Apply)
		}, []string{
			`later shop/cart (sidecar) 2 pods, "1.30.3" to "1.31.0 of revision 1-31-0": another revision injects it now: 1-31-0, was default [outdated]`,
			`never shop/lone (sidecar) 1 pods, "1.30.3" to "1.31.0 of revision 1-31-0": nothing makes a bare pod anew: another revision injects it now: 1-31-0, was default only once it is replaced by hand [outdated]`,
			`now shop/web-istio (gateway) 1 pods, "1.30.3" to "1.31.0 of revision 1-31-0": istiod writes its pod template anew, which rolls it at once`,
		}},
		"a namespace moves to another revision": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return labelled("bank", map[string]any{"istio-injection": nil, "istio.io/rev": "1-31-0"})
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "1.31.0 of revision 1-31-0": another revision injects it now: 1-31-0, was default [outdated]`,
		}},
		"a namespace is injected": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return labelled("plain", map[string]any{"istio-injection": "enabled"})
		}, []string{
			`later plain/other (sidecar) 2 pods, "" to "1.30.3": its next pod gets a proxy, 1.30.3`,
		}},
		"a namespace is injected no more": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return labelled("bank", map[string]any{"istio-injection": nil})
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "": its next pod has no proxy any more`,
		}},
		"a label without meaning": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return labelled("bank", map[string]any{"team": "ledger"})
		}, nil},
		"a webhook whose Service is nowhere": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, strings.Replace(strings.TrimPrefix(hook("istio-sidecar-injector", "default", "", "istio-injection", "enabled"), "\n---\n"), "name: istiod,", "name: gone,", 1), impact.Replace)
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "": its next pod can't be made: `,
		}},
		"a webhook goes": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return deleted(cluster.Ref{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration", Name: "istio-sidecar-injector"})
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "": its next pod has no proxy any more`,
		}},
		"an injector gives another version": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, injectorValues(`{"global":{"hub":"docker.io/istio","tag":"1.30.4"}}`), impact.Apply)
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "1.30.4": its proxy is 1.30.3, injection gives 1.30.4 now [outdated]`,
			`later shop/cart (sidecar) 2 pods, "1.30.3" to "1.30.4": its proxy is 1.30.3, injection gives 1.30.4 now [outdated]`,
			`never shop/lone (sidecar) 1 pods, "1.30.3" to "1.30.4": nothing makes a bare pod anew: its proxy is 1.30.3, injection gives 1.30.4 now only once it is replaced by hand [outdated]`,
			`now shop/web-istio (gateway) 1 pods, "1.30.3" to "1.30.4": istiod writes its pod template anew, which rolls it at once`,
		}},
		// No version differs, so that restart.outdated does not see it.
		"an injector gives other resources": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, injectorValues(`{"global":{"hub":"docker.io/istio","tag":"1.30.3","proxy":{"resources":{"requests":{"cpu":"1"}}}}}`), impact.Apply)
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "1.30.3": its injection template gives another pod`,
			`later shop/cart (sidecar) 2 pods, "1.30.3" to "1.30.3": its injection template gives another pod`,
			`never shop/lone (sidecar) 1 pods, "1.30.3" to "1.30.3": nothing makes a bare pod anew: its injection template gives another pod only once it is replaced by hand`,
		}},
		"an injector says the same in other words": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, injectorValues(`{"global": {"tag": "1.30.3", "hub": "docker.io/istio"}}`), impact.Apply)
		}, nil},
		"an injector whose values are none": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, injectorValues(`{`), impact.Apply)
		}, []string{
			`later bank/ledger (sidecar) 2 pods, "1.30.3" to "": its next pod can't be made: `,
			`later shop/cart (sidecar) 2 pods, "1.30.3" to "": its next pod can't be made: `,
			`never shop/lone (sidecar) 1 pods, "1.30.3" to "": nothing makes a bare pod anew: its next pod can't be made: `,
		}},
		"the configuration of the mesh": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-1-31-0, namespace: istio-system}, data: {mesh: "accessLogFile: /dev/null"}}`, impact.Apply)
		}, []string{
			`later istio-system/istiod-1-31-0 (control plane) 2 pods, "" to "": it reads configmap/istio-1-31-0 when it starts, and not again`,
		}},
		"a CRD refuses what is stored": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: sidecars.networking.istio.io}, spec: {versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {host: {type: integer}}}}}}}]}}`, impact.Apply)
		}, []string{
			`RUT009 customresourcedefinition.apiextensions.k8s.io/sidecars.networking.istio.io: its new schema of v1 refuses objects that are stored: sidecar.networking.istio.io/s in shop (`,
			`RUT009 customresourcedefinition.apiextensions.k8s.io/sidecars.networking.istio.io: its new schema of v1 does not know fields that stored objects use, which are lost with the next write to each: sidecar.networking.istio.io/s in shop (spec.mode)`,
		}},
		"a CRD goes": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return deleted(crd("gateways.gateway.networking.k8s.io"))
		}, []string{
			`RUT009 customresourcedefinition.apiextensions.k8s.io/gateways.gateway.networking.k8s.io: its deletion deletes all objects of its kind, and there are some: gateway.gateway.networking.k8s.io/web in shop`,
			`now shop/web-istio (gateway) 1 pods, "1.30.3" to "": it goes, and its pods with it`,
		}},
		"a workload": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: cart, namespace: shop}, spec: {template: {spec: {containers: [{name: app, image: "app:2"}]}}}}`, impact.Apply)
		}, []string{
			`now shop/cart (sidecar) 2 pods, "1.30.3" to "1.30.3": its pod template changes, which rolls it at once`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := live(t)
			r, err := look(t, s, c.changes(t))
			if err != nil {
				t.Fatal(err)
			}
			got := told(r)
			for _, want := range c.want {
				i := slices.IndexFunc(got, func(s string) bool {
					return s == want || strings.HasSuffix(want, ": ") && strings.HasPrefix(s, want) || strings.HasSuffix(want, "(") && strings.HasPrefix(s, want)
				})
				if i < 0 {
					t.Errorf("no word of\n  %s", want)
					continue
				}
				got = slices.Delete(got, i, i+1)
			}
			for _, s := range got {
				t.Errorf("unexpected\n  %s", s)
			}
			everyPod(t, s, r)
			views(t, r)
		})
	}
}

// everyPod demands that each pod with a proxy stands once in the report.
func everyPod(t *testing.T, s *sim.Cluster, r *impact.Report) {
	t.Helper()
	seen := map[string]int{}
	for _, list := range [][]impact.Affected{r.Now, r.Later, r.Never} {
		for _, a := range list {
			for _, p := range a.Pods {
				seen[a.Ref.Namespace+"/"+p]++
			}
		}
	}
	for _, o := range s.Objects() {
		if _, ok := runtimemesh.ProxyOf(o); o.GetKind() != "Pod" || !ok {
			continue
		}
		if n := seen[o.GetNamespace()+"/"+o.GetName()]; n != 1 {
			t.Errorf("pod %s stands %d times in the report", o.GetName(), n)
		}
	}
}

// views demands that every form of a report names every workload, and that the
// JSON has lists.
func views(t *testing.T, r *impact.Report) {
	t.Helper()
	var text, md bytes.Buffer
	if err := errors.Join(r.Text(&text), r.Markdown(&md)); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]impact.Affected{r.Now, r.Later, r.Never} {
		for _, a := range list {
			if !strings.Contains(text.String(), "/"+a.Ref.Name) || !strings.Contains(md.String(), "/"+a.Ref.Name) {
				t.Errorf("%s is not in\n%s\nor\n%s", a.Ref, text.String(), md.String())
			}
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"changes", "now", "later", "never", "pods", "findings", "assumptions"} {
		if bytes.Contains(raw, []byte(`"`+list+`":null`)) {
			t.Errorf("no list of %s in the JSON", list)
		}
	}
}

// What the server does not take is an error, and so is what is not there.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		changes func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error)
		code    diag.Code
		want    string
	}{
		"invalid": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/rev: "not a label"}}}`, impact.Apply)
		}, diag.Blocked, "apply namespace/shop: the API server refuses it"},
		"absent": {func(*testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return labelled("nowhere", map[string]any{"a": "b"})
		}, diag.Usage, "namespace/nowhere: is not there"},
		"absent, to be replaced": {func(t *testing.T) func(context.Context, *cluster.Client) ([]impact.Change, error) {
			return objects(t, `{apiVersion: v1, kind: Namespace, metadata: {name: nowhere}}`, impact.Replace)
		}, diag.Usage, "namespace/nowhere: is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := look(t, live(t), c.changes(t))
			if err == nil || diag.ExitCode(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want code %d and %s", err, c.code, c.want)
			}
		})
	}
}

// cable is a connection that breaks after some requests.
type cable struct {
	next http.RoundTripper
	left int
}

func (c *cable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.left--; c.left < 0 {
		return nil, errors.New("no route to host")
	}
	return c.next.RoundTrip(r)
}

func TestClusterFallsSilent(t *testing.T) {
	s := live(t)
	cfg := s.Config()
	cfg.Transport = &cable{next: cfg.Transport, left: 12}
	c, err := cluster.New(cfg, "prod", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tw, err := twin.New(t.Context(), c, twin.Options{Controllers: controllers.All(), Injector: mesh.StubInjector{}, Now: s.Clock().Now()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = impact.Of(t.Context(), impact.Request{Twin: tw, Changes: labelled("bank", map[string]any{"istio-injection": nil})})
	if !errors.Is(err, twin.ErrUnreachable) || diag.ExitCode(err) != diag.Usage || !strings.Contains(err.Error(), "stopped answering while the change was looked at") {
		t.Errorf("error %v", err)
	}
}
