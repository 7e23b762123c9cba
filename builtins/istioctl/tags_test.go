package istioctl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/workbench"
)

const (
	canary      = "1-31-0"
	shopGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: istio-system, labels: {istio.io/rev: stable}}
spec:
  gatewayClassName: istio
  listeners: [{name: one, port: 80, protocol: HTTP}]
`
)

// twoRevisions is a mesh of 1.30.3 without revision, and beside it the control
// plane 1-31-0; a Gateway of the Gateway API goes by the tag stable, which is
// not there yet.
func twoRevisions(t *testing.T) *workbench.Bench {
	t.Helper()
	c, err := sim.New(sim.Options{
		Seed: 1, Controllers: append(controllers.All(), mesh.NewIstiods().Controllers()...),
		Injector: Injector(), InjectOnLoad: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	old, err := renderer.Render(context.Background(), lib.RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join("..", "..", "runtime", "sim", "mesh", "testdata", "gateway-api.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	gateways, err := manifest.Parse(string(raw) + "\n---\n" + shopGateway)
	if err != nil {
		t.Fatal(err)
	}
	spec := mesh.Spec{Istio: "1.30.3", Workloads: 4, Namespaces: 2, Nodes: 2, Seed: 1}
	if err := mesh.Populate(c, append(mesh.Build(spec, mesh.Retag(old.Objects, LinkedVersion, "1.30.3")), gateways...)); err != nil {
		t.Fatal(err)
	}
	c.Advance(2 * time.Minute)
	b := workbench.On(t, Specs(renderer), c)
	install(t, b, lib.RenderOptions{Revision: canary, Set: map[string]any{"components.ingressGateways[0].enabled": false}})
	return b
}

// install applies a render as istioctl does, and lets it come up.
func install(t *testing.T, b *workbench.Bench, o lib.RenderOptions) {
	t.Helper()
	got, err := renderer.Render(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range got.Objects {
		if o.GetKind() == "CustomResourceDefinition" || o.GetName() == "istiod-default-validator" {
			continue // those of the first install
		}
		if _, err := b.Client.Apply(t.Context(), o.DeepCopy(), cluster.ApplyOptions{Manager: "istio-operator", Force: true}); err != nil {
			t.Fatalf("%s: %v", cluster.RefOf(o), err)
		}
	}
	b.Sim.Advance(2 * time.Minute)
}

func positional(s string) starlark.Tuple { return starlark.Tuple{starlark.String(s)} }

func text(name, v string) starlark.Tuple { return workbench.Kw(name, starlark.String(v)) }

func list(name string, vs ...string) starlark.Tuple {
	var out []starlark.Value
	for _, v := range vs {
		out = append(out, starlark.String(v))
	}
	return workbench.Kw(name, starlark.NewList(out))
}

// sent are the effects since the last call, as "verb Kind name".
func sent(b *workbench.Bench) []string {
	var out []string
	for _, e := range b.Sent {
		if !manifest.IsMove(e) {
			out = append(out, string(e.Verb)+" "+e.Ref.Kind+" "+e.Ref.Name)
		}
	}
	b.Sent = nil
	return out
}

func TestTagIsMadeMovedAndRemoved(t *testing.T) {
	b := twoRevisions(t)
	if got := b.Must("istioctl.tags", nil).([]tagged); len(got) != 0 {
		t.Fatalf("tags %+v, want none", got)
	}
	made := b.Must("istioctl.set_tag", positional("stable"), text("revision", "default")).(*tagSet)
	if made.Was != "" || len(made.Restarts) != 0 {
		t.Errorf("made: %+v", made)
	}
	want := []string{"apply Service istiod-revision-tag-stable", "apply MutatingWebhookConfiguration istio-revision-tag-stable"}
	if got := sent(b); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	b.Sim.Advance(time.Minute) // istiod makes the gateway's Deployment
	gw := b.Get("Deployment", "apps", "istio-system", "public-istio")
	if gw == nil {
		t.Fatal("the gateway of the tag has no workload")
	}
	tags := b.Must("istioctl.tags", nil).([]tagged)
	if len(tags) != 1 || tags[0].Revision != "default" || len(tags[0].Gateways) != 1 || tags[0].Configuration != "istio-revision-tag-stable" {
		t.Errorf("tags %+v", tags)
	}

	// The namespaces go by the tag.
	spaces := b.Must("istioctl.revisions", nil).([]revision)[1].Namespaces
	if len(spaces) != 2 {
		t.Fatalf("namespaces of default: %q", spaces)
	}
	for _, ns := range spaces {
		body := `{"metadata":{"labels":{"istio-injection":null,"istio.io/rev":"stable"}}}`
		if _, err := b.Client.Patch(t.Context(), cluster.Ref{Version: "v1", Kind: "Namespace", Name: ns}, "application/merge-patch+json", []byte(body), cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.Call("istioctl.set_tag", positional("stable"), text("revision", canary))
	refused(t, err, `tag "stable": exists already, and points at default`)
	_, err = b.Call("istioctl.remove_tag", positional("stable"))
	refused(t, err, "is in use by 2 namespaces")
	if got := sent(b); len(got) != 0 {
		t.Errorf("a refused call made %q", got)
	}

	overwrite := workbench.Kw("overwrite", starlark.True)
	shown := b.Must("istioctl.diff_set_tag", positional("stable"), text("revision", canary), overwrite).(*manifest.Change)
	if want := []string{"deployment.apps/public-istio in istio-system"}; !slices.Equal(shown.Restarts, want) {
		t.Errorf("restarts at once %q, want %q", shown.Restarts, want)
	}
	pods := 0
	for _, w := range shown.Outdated {
		pods += w.Pods
		if w.From != "default" || w.To != canary {
			t.Errorf("outdated %+v", w)
		}
	}
	if pods < 4 {
		t.Errorf("%d pods get another proxy, want all: %+v", pods, shown.Outdated)
	}
	if !strings.Contains(shown.Text, "+    istio.io/rev: "+canary) {
		t.Errorf("the diff does not show the move:\n%s", shown.Text)
	}
	if _, ok := b.Events[len(b.Events)-1].(*event.Diff); !ok {
		t.Error("the views were not told")
	}
	moved := b.Must("istioctl.set_tag", positional("stable"), text("revision", canary), overwrite).(*tagSet)
	if moved.Was != "default" || len(moved.Restarts) != 1 {
		t.Errorf("moved: %+v", moved)
	}
	for _, e := range b.Sent {
		// What was approved is what is sent.
		if approved, shown, _ := reviewedAs(b, e); !shown {
			t.Errorf("%s: not as it was shown (%v)", e.Ref, approved)
		}
	}
	sent(b)
	before := gw.GetGeneration()
	b.Sim.Advance(time.Minute)
	if now := b.Get("Deployment", "apps", "istio-system", "public-istio"); now.GetGeneration() == before {
		t.Error("the forecast said that the gateway rolls; it did not")
	}
	again := b.Must("istioctl.set_tag", positional("stable"), text("revision", canary), overwrite).(*tagSet)
	if got := sent(b); len(got) != 0 || len(again.Outdated) != 0 {
		t.Errorf("again: sent %q, %+v", got, again)
	}
}

func reviewedAs(b *workbench.Bench, e *effect.Effect) (approved, diffed bool, other string) {
	return b.Facts.Reviewed(e.Ref.ID(), e.Digest())
}

// refused asks for a usage error that says want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v, want one that says %q", err, want)
	}
	var d *diag.Error
	if diag.ExitCode(err) != diag.Usage || !errors.As(err, &d) {
		t.Errorf("%v: exit %d, want %d", err, diag.ExitCode(err), diag.Usage)
	}
}

func TestDefaultMovesWithoutAGap(t *testing.T) {
	b := twoRevisions(t)
	b.Must("istioctl.set_tag", positional("default"), text("revision", canary), list("adopt", "istio-operator"))
	want := []string{
		"apply Service istiod-revision-tag-default",
		"apply ValidatingWebhookConfiguration istiod-default-validator",
		"apply MutatingWebhookConfiguration istio-revision-tag-default",
		"patch MutatingWebhookConfiguration istio-sidecar-injector",
	}
	if got := sent(b); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	hook := b.Get("MutatingWebhookConfiguration", "admissionregistration.k8s.io", "", "istio-sidecar-injector")
	for _, h := range hook.Object["webhooks"].([]any) {
		m := h.(map[string]any)
		for _, k := range []string{"namespaceSelector", "objectSelector"} {
			s := m[k].(map[string]any)
			if s["matchExpressions"] != nil || s["matchLabels"].(map[string]any)["istio.io/deactivated"] != "never-match" {
				t.Errorf("%s of %s is %v, want one that matches nothing", k, m["name"], s)
			}
		}
	}
	v := b.Get("ValidatingWebhookConfiguration", "admissionregistration.k8s.io", "", "istiod-default-validator")
	svc := v.Object["webhooks"].([]any)[0].(map[string]any)["clientConfig"].(map[string]any)["service"].(map[string]any)
	if svc["name"] != "istiod-"+canary {
		t.Errorf("the validation webhook calls %v", svc["name"])
	}
	// The namespaces' label istio-injection=enabled means the canary now.
	revs := b.Must("istioctl.revisions", nil).([]revision)
	if revs[0].Name != canary || len(revs[0].Namespaces) < 2 || !slices.Contains(revs[0].Tags, "default") {
		t.Errorf("revisions %+v", revs)
	}
	if !revs[1].InUse || revs[1].Proxies == 0 || len(revs[1].Namespaces) != 0 {
		t.Errorf("the old revision still has its proxies: %+v", revs[1])
	}
	_, err := b.Call("istioctl.uninstall", nil, text("revision", "default"))
	refused(t, err, `revision "default": is in use by`)
}

func TestUninstall(t *testing.T) {
	b := twoRevisions(t)
	// Validation is the canary's, so removing the canary has to give it back.
	b.Must("istioctl.set_tag", positional("default"), text("revision", canary), list("adopt", "istio-operator"))
	_, err := b.Call("istioctl.uninstall", nil, text("revision", canary))
	refused(t, err, "is in use by")
	b.Must("istioctl.set_tag", positional("default"), text("revision", "default"), workbench.Kw("overwrite", starlark.True), list("adopt", "istio-operator"))
	point(t, b, "istiod-"+canary)
	sent(b)

	shown := b.Must("istioctl.diff_uninstall", nil, text("revision", canary)).(*manifest.Change)
	if shown.Effects[0] != "patch validatingwebhookconfiguration.admissionregistration.k8s.io/istiod-default-validator" {
		t.Errorf("first effect %q", shown.Effects[0])
	}
	done := b.Must("istioctl.uninstall", nil, text("revision", canary)).(*removed)
	if len(done.Changed) != 1 || len(done.Removed) < 5 {
		t.Errorf("%+v", done)
	}
	order := sent(b)
	at := func(s string) int {
		i := slices.Index(order, s)
		if i < 0 {
			t.Errorf("%q is not among %q", s, order)
		}
		return i
	}
	if hook, istiod, svc := at("delete MutatingWebhookConfiguration istio-sidecar-injector-"+canary), at("delete Deployment istiod-"+canary), at("delete Service istiod-"+canary); hook > istiod || istiod > svc {
		t.Errorf("order %q", order)
	}
	for _, o := range b.Sim.Objects() {
		if o.GetLabels()["istio.io/rev"] == canary && o.GetLabels()["operator.istio.io/component"] != "" && !slices.Contains([]string{"Pod", "Endpoints", "EndpointSlice"}, o.GetKind()) && len(o.GetOwnerReferences()) == 0 {
			t.Errorf("%s is still there", cluster.RefOf(o))
		}
	}
	for _, name := range []string{"istio-validator-" + canary + "-istio-system"} {
		if b.Get("ValidatingWebhookConfiguration", "admissionregistration.k8s.io", "", name) != nil {
			t.Errorf("%s is still there", name)
		}
	}
	if b.Get("ClusterRole", "rbac.authorization.k8s.io", "", "istiod-clusterrole-"+canary+"-istio-system") != nil || b.Get("ServiceAccount", "", "istio-system", "istiod-"+canary) != nil {
		t.Error("its rights are still there")
	}
	if b.Get("Deployment", "apps", "istio-system", "istiod") == nil || b.Get("ServiceAccount", "", "istio-system", "istiod") == nil || b.Get("Deployment", "apps", "istio-system", "istio-ingressgateway") == nil {
		t.Error("the other revision was touched")
	}
}

// A step that failed once it had removed what a revision, or a tag, is known by
// goes on when it begins anew: with what is left, and also when nothing is. One
// that removed nothing of it is told that there is none.
func TestUninstallIsTakenUp(t *testing.T) {
	b := twoRevisions(t)
	b.Must("istioctl.set_tag", positional("next"), text("revision", "default"))
	sent(b)
	for _, c := range []struct {
		name string
		call func() (any, error)
	}{
		{"istioctl.uninstall", func() (any, error) { return b.Call("istioctl.uninstall", nil, text("revision", canary)) }},
		{"istioctl.remove_tag", func() (any, error) { return b.Call("istioctl.remove_tag", positional("next")) }},
	} {
		if _, err := c.call(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		made := b.Sent
		sent(b)
		_, err := c.call()
		refused(t, err, "there is no")
		b.Made = made
		account := cluster.Ref{Version: "v1", Kind: "ServiceAccount", Namespace: "istio-system", Name: "istiod-" + canary}
		left := &cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": account.Kind}}
		left.SetNamespace(account.Namespace)
		left.SetName(account.Name)
		left.SetLabels(map[string]string{"app": "istiod", "release": "istio", "app.kubernetes.io/part-of": "istio"})
		if _, err := b.Client.Apply(t.Context(), left, cluster.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.call(); err != nil {
			t.Errorf("%s: taken up: %v", c.name, err)
		}
		want := []string{}
		if c.name == "istioctl.uninstall" {
			want = append(want, "delete ServiceAccount "+account.Name)
		}
		if got := sent(b); !slices.Equal(got, want) {
			t.Errorf("%s: taken up, it sent %q, want %q", c.name, got, want)
		}
		if _, err := c.call(); err != nil {
			t.Errorf("%s: with nothing left: %v", c.name, err)
		}
		b.Made, b.Sent = nil, nil
	}
}

// point makes the default validation webhook call a Service.
func point(t *testing.T, b *workbench.Bench, service string) {
	t.Helper()
	ref := cluster.Ref{Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration", Name: "istiod-default-validator"}
	body := `{"webhooks":[{"name":"validation.istio.io","clientConfig":{"service":{"name":"` + service + `","namespace":"istio-system"}}}]}`
	if _, err := b.Client.Patch(t.Context(), ref, "application/strategic-merge-patch+json", []byte(body), cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestUninstallShowsTheGateway(t *testing.T) {
	b := twoRevisions(t)
	install(t, b, lib.RenderOptions{Revision: "next"})
	gateway := "istio-ingressgateway"
	if rev := b.Get("Deployment", "apps", "istio-system", gateway).GetLabels()["istio.io/rev"]; rev != "next" {
		t.Fatalf("the gateway is of revision %q", rev)
	}
	shown := b.Must("istioctl.diff_uninstall", nil, text("revision", "next"), workbench.Kw("gateways", starlark.True)).(*manifest.Change)
	if !slices.Contains(shown.Effects, "delete deployment.apps/"+gateway+" in istio-system") {
		t.Errorf("effects %q", shown.Effects)
	}
	if !strings.Contains(strings.Join(shown.Notes, "\n"), "gateways go with it: ") {
		t.Errorf("notes %q", shown.Notes)
	}
	// Without leave the gateway stays, and then the revision is in use by it.
	_, err := b.Call("istioctl.diff_uninstall", nil, text("revision", "next"))
	refused(t, err, gateway)
}

func TestBadTagsAndRevisions(t *testing.T) {
	b := twoRevisions(t)
	helm := `{"metadata":{"annotations":{"meta.helm.sh/release-name":"istiod-canary","meta.helm.sh/release-namespace":"istio-system"}}}`
	for _, tc := range []struct {
		name, call string
		args       starlark.Tuple
		kw         []starlark.Tuple
		want       string
	}{
		{"tag with a bad name", "set_tag", positional("Prod/1"), []starlark.Tuple{text("revision", canary)}, "is no name of a tag"},
		{"tag of an unknown revision", "set_tag", positional("prod"), []starlark.Tuple{text("revision", "1-31-1")}, `there is no revision "1-31-1"; expected one of 1-31-0, default`},
		{"tag named as a revision", "set_tag", positional(canary), []starlark.Tuple{text("revision", "default")}, "a revision has this name"},
		{"unknown tag", "remove_tag", positional("prod"), nil, "there is no such revision tag"},
		{"unknown revision", "uninstall", nil, []starlark.Tuple{text("revision", "1-31")}, `there is no revision "1-31"`},
		{"revision in use", "uninstall", nil, []starlark.Tuple{text("revision", "default")}, "is in use by 2 namespaces"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := b.Call("istioctl."+tc.call, tc.args, tc.kw...)
			refused(t, err, tc.want)
		})
	}
	t.Run("mixed ownership", func(t *testing.T) {
		ref := cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "istio-system", Name: "istiod-" + canary}
		if _, err := b.Client.Patch(t.Context(), ref, "application/merge-patch+json", []byte(helm), cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Call("istioctl.uninstall", nil, text("revision", canary))
		refused(t, err, "belongs to the Helm release istio-system/istiod-canary")
	})
	if got := sent(b); len(got) != 0 {
		t.Errorf("refused calls made %q", got)
	}
}
