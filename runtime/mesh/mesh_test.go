package mesh

import (
	"fmt"
	"testing"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/knowledge"
)

func object(t *testing.T, text string) *cluster.Object {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &cluster.Object{}
	if err := o.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestImageVersion(t *testing.T) {
	for image, want := range map[string]string{
		"docker.io/istio/pilot:1.31.0":            "1.31.0",
		"docker.io/istio/pilot:1.31.0-distroless": "1.31.0",
		"localhost:5000/istio/pilot":              "",
		"localhost:5000/istio/pilot:1.28.10":      "1.28.10",
		"istio/pilot:1.31.0@sha256:abc":           "1.31.0",
		"istio/pilot@sha256:abc":                  "",
		"istio/pilot:1.32.0-rc.1":                 "1.32.0-rc.1",
		"istio/pilot:latest":                      "",
	} {
		if got := ImageVersion(image); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func known(t *testing.T) *knowledge.Base {
	t.Helper()
	k, err := knowledge.Default()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestCheckPath(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		mode     Mode
		ok       bool
	}{
		{"1.30.3", "1.31.0", InPlace, true},
		{"1.31.0", "1.31.0", InPlace, true},
		{"1.28.9", "1.28.10", InPlace, true},
		{"1.28.10", "1.28.9", InPlace, false},
		{"1.29.6", "1.31.0", InPlace, false},
		{"1.29.6", "1.31.0", ByRevision, true},
		{"1.28.10", "1.31.0", ByRevision, false},
		{"1.31.0", "1.30.3", ByRevision, false},
		{"1.31.0", "2.0.0", InPlace, false},
	} {
		err := CheckPath(known(t), semver.MustParse(tc.from), semver.MustParse(tc.to), tc.mode)
		if (err == nil) != tc.ok {
			t.Errorf("%s -> %s %s: %v", tc.from, tc.to, tc.mode, err)
		}
	}
}

func TestCheckSkew(t *testing.T) {
	for _, tc := range []struct {
		control, data string
		ok            bool
	}{{"1.31.0", "1.30.3", true}, {"1.31.0", "1.29.6", false}, {"1.30.3", "1.31.0", false}, {"1.31.0", "1.31.1", true}} {
		if err := CheckSkew(known(t), semver.MustParse(tc.control), semver.MustParse(tc.data), InPlace); (err == nil) != tc.ok {
			t.Errorf("%s over %s: %v", tc.control, tc.data, err)
		}
	}
}

func TestSupportedKubernetes(t *testing.T) {
	r, ok := SupportedKubernetes(known(t), semver.MustParse("1.31.0"))
	if !ok || !r.Contains(32) || !r.Contains(36) || r.Contains(31) || r.Contains(37) {
		t.Errorf("%v %v", r, ok)
	}
	if _, ok := SupportedKubernetes(known(t), semver.MustParse("1.99.0")); ok {
		t.Error("an unknown version has a range")
	}
}

func TestRollout(t *testing.T) {
	for _, tc := range []struct {
		kind, spec string
		want       Rollout
	}{
		{"Deployment", `{}`, Rollout{Replicas: 1, Surge: 1}},
		{"Deployment", `{replicas: 3}`, Rollout{Replicas: 3, Surge: 1}},
		{"Deployment", `{replicas: 10}`, Rollout{Replicas: 10, Surge: 3, Unavailable: 2}},
		{"Deployment", `{replicas: 3, strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 25%}}}`, Rollout{Replicas: 3, Unavailable: 1}},
		{"Deployment", `{replicas: 4, minReadySeconds: 5, strategy: {type: Recreate}}`, Rollout{Replicas: 4, Unavailable: 4, MinReady: 5}},
		{"StatefulSet", `{replicas: 5}`, Rollout{Replicas: 5, Unavailable: 1}},
		{"StatefulSet", `{replicas: 5, updateStrategy: {type: OnDelete}}`, Rollout{Replicas: 5, Unavailable: 1, Manual: true}},
	} {
		o := object(t, fmt.Sprintf("{apiVersion: apps/v1, kind: %s, metadata: {name: a}, spec: %s}", tc.kind, tc.spec))
		got, err := RolloutOf(o)
		if err != nil || got != tc.want {
			t.Errorf("%s %s: %+v, %v; want %+v", tc.kind, tc.spec, got, err, tc.want)
		}
	}
	ds := object(t, `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a}, spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 10%}}}, status: {desiredNumberScheduled: 11}}`)
	if got, err := RolloutOf(ds); err != nil || got.Unavailable != 2 || got.Replicas != 11 {
		t.Errorf("daemonset: %+v, %v", got, err)
	}
}

func TestBudget(t *testing.T) {
	b, err := BudgetOf(object(t, `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a, namespace: shop}, spec: {selector: {matchLabels: {app: web}}}, status: {desiredHealthy: 2, currentHealthy: 3, expectedPods: 3}}`))
	if err != nil || b.Allowed() != 1 || !b.Matches("shop", map[string]string{"app": "web"}) || b.Matches("other", map[string]string{"app": "web"}) {
		t.Fatalf("%+v, %v", b, err)
	}
	if b.Breaks(Rollout{Unavailable: 1}) || !b.Breaks(Together(Rollout{Unavailable: 1}, Rollout{Unavailable: 1})) {
		t.Error("one pod may go, two may not")
	}
}

func TestOutdated(t *testing.T) {
	sel := func(s string) labels.Selector {
		l, err := labels.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	ins := []Injector{
		{Revision: "default", Namespaces: sel("istio-injection=enabled"), Objects: labels.Everything()},
		{Revision: "1-31-0", Namespaces: sel("istio.io/rev=stable,!istio-injection"), Objects: labels.Everything(), Tag: "stable"},
	}
	spaces := map[string]map[string]string{
		"shop": {LabelInjection: "enabled"}, "bank": {LabelRev: "stable"}, "left": {},
	}
	images := map[string]string{"default": "istio/proxyv2:1.31.0", "1-31-0": "istio/proxyv2:1.31.0"}
	pod := func(ns, owner, image, rev string) Proxy {
		return Proxy{
			Namespace: ns, Owner: cluster.Ref{Kind: "Deployment", Group: "apps", Namespace: ns, Name: owner},
			Kind: Sidecar, Image: image, Version: ImageVersion(image), Revision: rev,
		}
	}
	px := []Proxy{
		pod("shop", "web", "istio/proxyv2:1.30.3", "default"), pod("shop", "web", "istio/proxyv2:1.30.3", "default"),
		pod("shop", "new", "istio/proxyv2:1.31.0", "default"),
		pod("shop", "hub", "mirror/proxyv2:1.31.0", "default"),
		pod("bank", "api", "istio/proxyv2:1.31.0", "default"),
		pod("left", "old", "istio/proxyv2:1.30.3", "default"),
	}
	want := []string{
		"deployment.apps/bank/api 1 another revision injects it now default 1-31-0",
		"deployment.apps/shop/hub 1 proxy image mirror/proxyv2:1.31.0 istio/proxyv2:1.31.0",
		"deployment.apps/shop/web 2 proxy version 1.30.3 1.31.0",
	}
	got := outdated(px, ins, spaces, images)
	if len(got) != len(want) {
		t.Fatalf("%d outdated, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range got {
		if s := fmt.Sprintf("%s %d %s %s %s", w.Ref.ID(), w.Pods, w.Reason, w.From, w.To); s != want[i] {
			t.Errorf("%s, want %s", s, want[i])
		}
	}
}

func TestProxyOf(t *testing.T) {
	p, ok := proxyOf(object(t, `
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  namespace: shop
  annotations: {sidecar.istio.io/status: '{"revision":"1-30-3"}'}
spec:
  initContainers: [{name: istio-proxy, image: "istio/proxyv2:1.30.3", restartPolicy: Always, args: [proxy, sidecar]}]
  containers: [{name: app, image: app}]
status: {phase: Running, conditions: [{type: Ready, status: "True"}]}
`))
	if !ok || !p.Native || p.Kind != Sidecar || p.Version != "1.30.3" || p.Revision != "1-30-3" || !p.Ready || p.Owner.Kind != "Pod" {
		t.Errorf("%+v %v", p, ok)
	}
	if _, ok := proxyOf(object(t, `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: app}]}}`)); ok {
		t.Error("a pod without proxy was counted")
	}
}

func TestInjectorImage(t *testing.T) {
	for in, want := range map[string]string{
		`{"global":{"hub":"docker.io/istio","tag":"1.30.3","proxy":{"image":"proxyv2"}}}`:                    "docker.io/istio/proxyv2:1.30.3",
		`{"global":{"hub":"h","tag":"1.30.3","variant":"distroless","proxy":{"image":"proxyv2"}}}`:           "h/proxyv2:1.30.3-distroless",
		`{"global":{"hub":"h","tag":"1.30.3","proxy":{"image":"registry.example/istio/proxy@sha256:feed"}}}`: "registry.example/istio/proxy@sha256:feed",
	} {
		if got, err := injectorImage(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

func TestIsMeshConfig(t *testing.T) {
	for _, tc := range []struct {
		ref  cluster.Ref
		want bool
	}{
		{cluster.Ref{Group: "networking.istio.io", Kind: "VirtualService", Name: "a"}, true},
		{cluster.Ref{Kind: "ConfigMap", Name: "istio-sidecar-injector"}, true},
		{cluster.Ref{Kind: "ConfigMap", Name: "app"}, false},
		{cluster.Ref{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "gateways.networking.istio.io"}, true},
		{cluster.Ref{Group: "apps", Kind: "Deployment", Name: "istiod"}, false},
	} {
		if got := IsMeshConfig(tc.ref, nil); got != tc.want {
			t.Errorf("%s: %v", tc.ref, got)
		}
	}
}
