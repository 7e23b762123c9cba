package lib

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/sim"
)

// pod is an application's pod as the API server hands it to the webhook.
func pod(t testing.TB, annotations, labels map[string]string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	err := u.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"Pod",
		"metadata":{"generateName":"web-6d4b75cb6d-","namespace":"shop","labels":{"app":"web","pod-template-hash":"6d4b75cb6d"},
			"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-6d4b75cb6d","uid":"u","controller":true,"blockOwnerDeletion":true}]},
		"spec":{"containers":[{"name":"web","image":"nginx:1.27","ports":[{"containerPort":8080,"protocol":"TCP"}],
			"readinessProbe":{"httpGet":{"path":"/ready","port":8080,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},
			"resources":{"requests":{"cpu":"100m"}}}],
			"serviceAccountName":"default","restartPolicy":"Always","dnsPolicy":"ClusterFirst","securityContext":{}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if annotations != nil {
		u.SetAnnotations(annotations)
	}
	if labels != nil {
		u.SetLabels(labels)
	}
	return u
}

func request(t testing.TB, manifest []*unstructured.Unstructured, rev string, p *unstructured.Unstructured) sim.InjectionRequest {
	t.Helper()
	suffix := ""
	if rev != "default" {
		suffix = "-" + rev
	}
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "shop"}}}
	return sim.InjectionRequest{
		Pod: p, Namespace: ns, Revision: rev,
		InjectorConfig: configMapData(t, manifest, "istio-sidecar-injector"+suffix),
		MeshConfig:     configMapData(t, manifest, "istio"+suffix),
	}
}

func containerNamed(t testing.TB, p *unstructured.Unstructured, field, name string) map[string]any {
	t.Helper()
	list, _, err := unstructured.NestedSlice(p.Object, "spec", field)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if m := c.(map[string]any); m["name"] == name {
			return m
		}
	}
	return nil
}

// TestInjectFixtures injects by the ConfigMaps that real istioctls rendered.
func TestInjectFixtures(t *testing.T) {
	inj := NewInjector()
	for _, tc := range []struct{ version, file, rev string }{
		{"1.28.10", "istio-1.28.10-default.yaml", "default"},
		{"1.29.6", "istio-1.29.6-default.yaml", "default"},
		{"1.30.3", "istio-1.30.3-default.yaml", "default"},
		{"1.31.0", "istio-1.31.0-default.yaml", "default"},
		{"1.30.3", "istio-1.30.3-default-rev.yaml", "1-30-3"},
		{"1.31.0", "istio-1.31.0-default-rev.yaml", "1-31-0"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			in := request(t, fixture(t, tc.file), tc.rev, pod(t, nil, nil))
			before := in.Pod.DeepCopy()
			got, err := inj.Inject(in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(before, in.Pod); d != "" {
				t.Errorf("the request's pod was changed:\n%s", d)
			}
			proxy := containerNamed(t, got, "initContainers", "istio-proxy")
			if proxy == nil {
				t.Fatal("no native sidecar")
			}
			if want := "docker.io/istio/proxyv2:" + tc.version; proxy["image"] != want {
				t.Errorf("image %v, want %s", proxy["image"], want)
			}
			if proxy["restartPolicy"] != "Always" {
				t.Errorf("restartPolicy %v", proxy["restartPolicy"])
			}
			if containerNamed(t, got, "initContainers", "istio-init") == nil {
				t.Error("no istio-init, and no CNI in this mesh")
			}
			var status struct {
				InitContainers []string
				Revision       string
			}
			if err := json.Unmarshal([]byte(got.GetAnnotations()["sidecar.istio.io/status"]), &status); err != nil {
				t.Fatal(err)
			}
			if status.Revision != tc.rev || len(status.InitContainers) != 2 {
				t.Errorf("status %+v", status)
			}
			if got.GetLabels()["security.istio.io/tlsMode"] != "istio" {
				t.Errorf("labels %v", got.GetLabels())
			}
			web := containerNamed(t, got, "containers", "web")
			probe, _, _ := unstructured.NestedString(web, "readinessProbe", "httpGet", "path")
			if probe != "/app-health/web/readyz" {
				t.Errorf("readiness probe path %q was not rewritten", probe)
			}
			again, err := inj.Inject(in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, again); d != "" {
				t.Errorf("second injection differs:\n%s", d)
			}
		})
	}
}

// shared renders for all tests, so that the same manifest is rendered once.
var shared = NewRenderer("")

// linked is a mesh rendered by the linked library, for tests that run everywhere.
func linked(t testing.TB, opts RenderOptions) []*unstructured.Unstructured {
	t.Helper()
	return mustRender(t, shared, opts).Objects
}

func TestInjectCNIAndRevision(t *testing.T) {
	mesh := linked(t, RenderOptions{Revision: "1-31-0", Set: map[string]any{"components.cni.enabled": true}})
	got, err := NewInjector().Inject(request(t, mesh, "1-31-0", pod(t, nil, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if containerNamed(t, got, "initContainers", "istio-validation") == nil {
		t.Error("no istio-validation with CNI")
	}
	if containerNamed(t, got, "initContainers", "istio-init") != nil {
		t.Error("istio-init with CNI")
	}
	if s := got.GetAnnotations()["sidecar.istio.io/status"]; !strings.Contains(s, `"revision":"1-31-0"`) {
		t.Errorf("status %s", s)
	}
}

func TestInjectHonoursOverrides(t *testing.T) {
	mesh := linked(t, RenderOptions{Set: map[string]any{"hub": "registry.example.com/istio", "tag": "1.31.0-fips"}})
	inj := NewInjector()
	inject := func(annotations, labels map[string]string) *unstructured.Unstructured {
		t.Helper()
		got, err := inj.Inject(request(t, mesh, "default", pod(t, annotations, labels)))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	image := func(p *unstructured.Unstructured, field string) any {
		c := containerNamed(t, p, field, "istio-proxy")
		if c == nil {
			return nil
		}
		return c["image"]
	}
	if got := image(inject(nil, nil), "initContainers"); got != "registry.example.com/istio/proxyv2:1.31.0-fips" {
		t.Errorf("image %v", got)
	}
	if got := image(inject(map[string]string{"sidecar.istio.io/proxyImage": "example.com/proxy:x"}, nil), "initContainers"); got != "example.com/proxy:x" {
		t.Errorf("image by annotation %v", got)
	}
	if got := image(inject(map[string]string{"sidecar.istio.io/proxyImageType": "distroless"}, nil), "initContainers"); got != "registry.example.com/istio/proxyv2:1.31.0-fips-distroless" {
		t.Errorf("image by type %v", got)
	}
	if got := image(inject(map[string]string{"sidecar.istio.io/nativeSidecar": "false"}, nil), "containers"); got == nil {
		t.Error("nativeSidecar=false: the proxy is no ordinary container")
	}
	cpu, _, _ := unstructured.NestedString(containerNamed(t, inject(map[string]string{"sidecar.istio.io/proxyCPU": "321m"}, nil), "initContainers", "istio-proxy"), "resources", "requests", "cpu")
	if cpu != "321m" {
		t.Errorf("CPU by annotation %q", cpu)
	}
	conf := inject(map[string]string{"proxy.istio.io/config": "concurrency: 7\n"}, nil)
	if b, _ := json.Marshal(containerNamed(t, conf, "initContainers", "istio-proxy")); !strings.Contains(string(b), `concurrency`) {
		t.Error("proxy.istio.io/config has no effect")
	}
	for name, p := range map[string]*unstructured.Unstructured{
		"label":      pod(t, nil, map[string]string{"sidecar.istio.io/inject": "false"}),
		"annotation": pod(t, map[string]string{"sidecar.istio.io/inject": "false"}, nil),
	} {
		got, err := inj.Inject(request(t, mesh, "default", p))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(p, got); d != "" {
			t.Errorf("inject=false by %s: changed:\n%s", name, d)
		}
	}
	host := pod(t, nil, nil)
	if err := unstructured.SetNestedField(host.Object, true, "spec", "hostNetwork"); err != nil {
		t.Fatal(err)
	}
	if got, err := inj.Inject(request(t, mesh, "default", host)); err != nil || got != host {
		t.Errorf("host network: %v, %v", got, err)
	}
}

func TestInjectGatewayTemplate(t *testing.T) {
	mesh := linked(t, RenderOptions{})
	p := pod(t, map[string]string{"inject.istio.io/templates": "gateway"}, map[string]string{"istio": "gw", "sidecar.istio.io/inject": "true"})
	c := map[string]any{"name": "istio-proxy", "image": "auto"}
	if err := unstructured.SetNestedSlice(p.Object, []any{c}, "spec", "containers"); err != nil {
		t.Fatal(err)
	}
	got, err := NewInjector().Inject(request(t, mesh, "default", p))
	if err != nil {
		t.Fatal(err)
	}
	if img := containerNamed(t, got, "containers", "istio-proxy")["image"]; img != "docker.io/istio/proxyv2:1.31.0" {
		t.Errorf("gateway image %v", img)
	}
}

func TestInjectRefuses(t *testing.T) {
	mesh := linked(t, RenderOptions{})
	for name, tc := range map[string]struct {
		change func(*sim.InjectionRequest)
		want   string
	}{
		"no config": {func(r *sim.InjectionRequest) { r.InjectorConfig = map[string]string{"values": "{}"} }, `no key "config"`},
		"no values": {func(r *sim.InjectionRequest) { delete(r.InjectorConfig, "values") }, `no key "values"`},
		"bad template": {func(r *sim.InjectionRequest) {
			r.InjectorConfig["config"] = "policy: enabled\ntemplates:\n  sidecar: \"{{ nosuch }}\"\n"
		}, "nosuch"},
		"bad mesh":   {func(r *sim.InjectionRequest) { r.MeshConfig = map[string]string{"mesh": "nosuchfield: ["} }, "configmap istio: mesh"},
		"bad values": {func(r *sim.InjectionRequest) { r.InjectorConfig["values"] = "[" }, "values"},
		"bad pod": {func(r *sim.InjectionRequest) {
			r.Pod.SetAnnotations(map[string]string{"traffic.sidecar.istio.io/includeInboundPorts": "loud"})
		}, "includeInboundPorts"},
		"unknown templ": {func(r *sim.InjectionRequest) {
			r.Pod.SetAnnotations(map[string]string{"inject.istio.io/templates": "nosuch"})
		}, `"nosuch" not found`},
	} {
		t.Run(name, func(t *testing.T) {
			in := request(t, mesh, "default", pod(t, nil, nil))
			tc.change(&in)
			_, err := NewInjector().Inject(in)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v lacks %q", err, tc.want)
			}
		})
	}
}

// TestInjectReplicas: what is shared between replicas is not their identity.
func TestInjectReplicas(t *testing.T) {
	mesh := linked(t, RenderOptions{})
	inj := NewInjector()
	named := func(i *Injector, name string) *unstructured.Unstructured {
		t.Helper()
		p := pod(t, nil, nil)
		p.SetName(name)
		p.SetUID(types.UID("uid-" + name))
		got, err := i.Inject(request(t, mesh, "default", p))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first, second := named(inj, "web-6d4b75cb6d-aaaaa"), named(inj, "web-6d4b75cb6d-bbbbb")
	if d := cmp.Diff(named(NewInjector(), "web-6d4b75cb6d-bbbbb"), second); d != "" {
		t.Errorf("remembered answer differs from a fresh one:\n%s", d)
	}
	if first.GetUID() != "uid-web-6d4b75cb6d-aaaaa" {
		t.Errorf("uid %s", first.GetUID())
	}
	// The webhook itself must not see a difference either: ask it with the name.
	in := request(t, mesh, "default", pod(t, nil, nil))
	in.Pod.SetName("web-6d4b75cb6d-aaaaa")
	in.Pod.SetUID("uid-web-6d4b75cb6d-aaaaa")
	hook, err := inj.hook(in)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := hook.injectAlone(in)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(direct, first); d != "" {
		t.Errorf("sharing changes the result:\n%s", d)
	}
}

// TestInjectDaemonSet: the pods of a DaemonSet differ in the node that they are
// pinned to, and share the rest.
func TestInjectDaemonSet(t *testing.T) {
	mesh := linked(t, RenderOptions{})
	on := func(node string) sim.InjectionRequest {
		p := pod(t, nil, nil)
		owner := p.Object["metadata"].(map[string]any)["ownerReferences"].([]any)[0].(map[string]any)
		owner["kind"], owner["name"] = "DaemonSet", "web"
		specOf(p)["affinity"] = map[string]any{"nodeAffinity": map[string]any{"requiredDuringSchedulingIgnoredDuringExecution": map[string]any{
			"nodeSelectorTerms": []any{map[string]any{"matchFields": []any{map[string]any{"key": "metadata.name", "operator": "In", "values": []any{node}}}}},
		}}}
		p.SetName("web-" + node)
		return request(t, mesh, "default", p)
	}
	inj := NewInjector()
	for _, node := range []string{"a", "b"} {
		in := on(node)
		before := in.Pod.DeepCopy()
		got, err := inj.Inject(in)
		if err != nil {
			t.Fatal(err)
		}
		hook, err := inj.hook(in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hook.injectAlone(in)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("node %s: sharing changes the result:\n%s", node, d)
		}
		if d := cmp.Diff(before, in.Pod); d != "" {
			t.Errorf("node %s: the request's pod was changed:\n%s", node, d)
		}
		if len(hook.answers.of) != 1 {
			t.Errorf("node %s: %d answers are remembered", node, len(hook.answers.of))
		}
	}
}

// TestInjectPrepared: what was prepared before its ReplicaSet had an identity is what
// is asked for then, and nothing else.
func TestInjectPrepared(t *testing.T) {
	mesh := linked(t, RenderOptions{})
	inj := NewInjector()
	with := func(ownerUID string) sim.InjectionRequest {
		p := pod(t, nil, nil)
		owners := p.GetOwnerReferences()
		owners[0].UID = types.UID(ownerUID)
		p.SetOwnerReferences(owners)
		return request(t, mesh, "default", p)
	}
	inj.Prepare(with(""))
	in := with("7")
	got, err := inj.Inject(in)
	if err != nil {
		t.Fatal(err)
	}
	want, err := NewInjector().Inject(with("7"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("preparing changes the result:\n%s", d)
	}
	if uid := got.GetOwnerReferences()[0].UID; uid != "7" {
		t.Errorf("the owner's uid is %q", uid)
	}
	hook, err := inj.hook(in)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(hook.answers.of); n != 1 {
		t.Errorf("%d answers, want the prepared one", n)
	}
}

// BenchmarkInjectReplica is a further pod of a known template.
func BenchmarkInjectReplica(b *testing.B) {
	in := request(b, linked(b, RenderOptions{}), "default", pod(b, nil, nil))
	inj := NewInjector()
	for b.Loop() {
		if _, err := inj.Inject(in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInject is the first pod of a template.
func BenchmarkInject(b *testing.B) {
	in := request(b, linked(b, RenderOptions{}), "default", pod(b, nil, nil))
	inj := NewInjector()
	n := 0
	for b.Loop() {
		n++
		in.Pod.SetLabels(map[string]string{"app": "web", "n": strconv.Itoa(n)})
		if _, err := inj.Inject(in); err != nil {
			b.Fatal(err)
		}
	}
}
