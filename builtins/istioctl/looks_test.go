package istioctl

import (
	"slices"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/value"
	"rutter.dev/rutter/tests/workbench"
)

func TestInstallBesides(t *testing.T) {
	b := twoRevisions(t)
	sent(b)
	got := b.Must("istioctl.install", nil, text("profile", "minimal"), text("revision", "next"), list("adopt", "istio-operator")).(*installed)
	if got.Version != LinkedVersion || len(got.Applied) < 5 || !strings.HasPrefix(got.Engine, "istio library") {
		t.Errorf("%+v", got)
	}
	order := sent(b)
	istiod, hook := slices.Index(order, "apply Deployment istiod-next"), slices.Index(order, "apply MutatingWebhookConfiguration istio-sidecar-injector-next")
	if istiod < 0 || hook < istiod {
		t.Errorf("order %q", order)
	}
	again := b.Must("istioctl.install", nil, text("profile", "minimal"), text("revision", "next"), list("adopt", "istio-operator")).(*installed)
	if len(again.Applied) != 0 {
		t.Errorf("applied again: %q", again.Applied)
	}
	// A conflict is not forced.
	ref := cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "istio-system", Name: "istiod-next"}
	body := `{"spec":{"template":{"spec":{"containers":[{"name":"discovery","image":"mine.example/pilot:1"}]}}}}`
	if _, err := b.Client.Patch(t.Context(), ref, "application/strategic-merge-patch+json", []byte(body), cluster.WriteOptions{Manager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Call("istioctl.install", nil, text("profile", "minimal"), text("revision", "next")); err == nil || !strings.Contains(err.Error(), "somebody") {
		t.Errorf("error %v, want the conflict with somebody", err)
	}
}

func TestInjectProbe(t *testing.T) {
	b := twoRevisions(t)
	ns := b.Must("istioctl.revisions", nil).([]revision)[1].Namespaces[0]
	p := b.Must("istioctl.inject_probe", nil, text("namespace", ns)).(*probed)
	if !p.Injected || p.Version != "1.30.3" || p.Expected != "default" || p.Refused != "" {
		t.Errorf("%+v", p)
	}
	if p := b.Must("istioctl.inject_probe", nil, text("namespace", "kube-system")).(*probed); p.Injected || p.Expected != "" {
		t.Errorf("kube-system: %+v", p)
	}
	labels := starlark.NewDict(1)
	if err := labels.SetKey(starlark.String("istio.io/rev"), starlark.String(canary)); err != nil {
		t.Fatal(err)
	}
	if p := b.Must("istioctl.inject_probe", nil, text("namespace", "default"), workbench.Kw("labels", labels)).(*probed); p.Expected != canary || p.Version != LinkedVersion {
		t.Errorf("a pod that names the canary: %+v", p)
	}
	if got := sent(b); len(got) != 0 {
		t.Errorf("the probe made %q", got)
	}
	if _, err := b.Call("istioctl.inject_probe", nil, text("namespace", "nowhere")); err == nil || !strings.Contains(err.Error(), "namespace nowhere") {
		t.Errorf("error %v", err)
	}
}

func TestProxyStatusCountsPodsWhereNoIstiodAnswers(t *testing.T) {
	b := twoRevisions(t)
	s := b.Must("istioctl.proxy_status", nil).(*proxyStatus)
	if s.Source != "pods" || s.Why == "" || len(s.Proxies) < 5 || len(s.Disconnected) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestProxyStatusOfIstiod(t *testing.T) {
	px := []mesh.Proxy{{Pod: "web-1", Namespace: "shop"}, {Pod: "web-2", Namespace: "shop"}}
	s := statusOf(px, []lib.ProxySync{{Proxy: "web-1.shop", Istiod: "istiod-1", Types: map[string]string{"CDS": "SYNCED", "LDS": "STALE"}}}, nil)
	if s.Source != "istiod" || !slices.Equal(s.Disconnected, []string{"web-2.shop"}) || !slices.Equal(s.Stale, []string{"web-1.shop: LDS: STALE"}) {
		t.Errorf("%+v", s)
	}
}

func TestValuesAndProfiles(t *testing.T) {
	b := newBench(t, "")
	set := starlark.NewDict(1)
	if err := set.SetKey(starlark.String("components.cni.enabled"), starlark.True); err != nil {
		t.Fatal(err)
	}
	v := b.must("values", arg("profile", starlark.String("default")), arg("set", set)).(string)
	if !strings.Contains(v, "kind: IstioOperator") || !strings.Contains(v, "cni:\n      enabled: true") {
		t.Errorf("values:\n%s", v)
	}
	all := b.must("profiles").([]string)
	for _, want := range []string{"default", "ambient", "minimal", "empty"} {
		if !slices.Contains(all, want) {
			t.Errorf("profiles %q lack %s", all, want)
		}
	}
	d := b.must("diff_profiles", arg("a", starlark.String("default")), arg("b", starlark.String("ambient"))).(string)
	if !strings.Contains(d, "+    ztunnel:") && !strings.Contains(d, "ztunnel") {
		t.Errorf("diff:\n%s", d)
	}
	if same := b.must("diff_profiles", arg("a", starlark.String("default")), arg("b", starlark.String("default"))).(string); same != "" {
		t.Errorf("a profile differs from itself:\n%s", same)
	}
	if _, err := b.call("values", arg("profile", starlark.String("nope"))); err == nil || !strings.Contains(err.Error(), `profile "nope": not found`) {
		t.Errorf("error %v", err)
	}
}

func TestDiffAnalyses(t *testing.T) {
	analysisOf := func(ms ...lib.Message) starlark.Value {
		v, err := value.FromGo(sorted(ms))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	stays := lib.Message{Code: "IST0102", Level: lib.LevelInfo, Text: "not injected", Resource: "Namespace a"}
	gone := lib.Message{Code: "IST0101", Level: lib.LevelError, Text: "no gateway", Resource: "VirtualService b"}
	fresh := lib.Message{Code: "IST0103", Level: lib.LevelError, Text: "old proxy", Resource: "Pod c"}
	b := newBench(t, "")
	d := b.must("diff_analyses", arg("before", analysisOf(stays, gone)), arg("after", analysisOf(stays, fresh))).(*analysisDiff)
	if d.OK || len(d.New) != 1 || len(d.Gone) != 1 || len(d.Stays) != 1 || !strings.Contains(d.New[0], "Pod c: old proxy [IST0103]") {
		t.Errorf("%+v", d)
	}
	if d := b.must("diff_analyses", arg("before", analysisOf(stays, gone)), arg("after", analysisOf(stays))).(*analysisDiff); !d.OK {
		t.Errorf("mended: %+v", d)
	}
	if _, err := b.call("diff_analyses", arg("before", starlark.String("x")), arg("after", analysisOf())); err == nil || !strings.Contains(err.Error(), "want what istioctl.analyze returned") {
		t.Errorf("error %v", err)
	}
}
