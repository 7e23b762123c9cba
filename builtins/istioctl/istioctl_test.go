package istioctl

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/manifest"
	rmesh "rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
)

func TestMain(m *testing.M) {
	if err := Setup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// memory is a store of blobs.
type memory map[string][]byte

func (m memory) Put(b []byte) (string, error) {
	h := sha256.Sum256(b)
	d := "sha256:" + hex.EncodeToString(h[:])
	m[d] = b
	return d, nil
}

func (m memory) Get(d string) ([]byte, error) {
	b, ok := m[d]
	if !ok {
		return nil, errors.New("no blob " + d)
	}
	return b, nil
}

// bench is a call's surroundings.
type bench struct {
	t      *testing.T
	sim    *sim.Cluster
	client *cluster.Client
	facts  effect.Facts
	blobs  memory
	specs  map[string]*builtin.Spec
}

// renderer is shared: renders are kept by their input.
var renderer = NewRenderer("")

func newBench(t *testing.T, kubernetes string) *bench {
	t.Helper()
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: Injector(), KubernetesVersion: kubernetes})
	if err != nil {
		t.Fatal(err)
	}
	client, err := cluster.New(c.Config(), "sim", c.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, sim: c, client: client, blobs: memory{}, specs: map[string]*builtin.Spec{}}
	for _, s := range Specs(renderer) {
		b.specs[s.Name] = s
	}
	return b
}

// install builds a mesh of Istio 1.30.3 and lets it come up.
func (b *bench) install() {
	b.t.Helper()
	got, err := renderer.Render(context.Background(), lib.RenderOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	spec := mesh.Spec{Istio: "1.30.3", Workloads: 4, Namespaces: 2, Nodes: 2, Seed: 1}
	for _, o := range mesh.Build(spec, mesh.Retag(got.Objects, LinkedVersion, "1.30.3")) {
		if _, err := b.client.Create(context.Background(), o.DeepCopy(), cluster.WriteOptions{Manager: "istio-operator"}); err != nil && !errors.Is(err, cluster.ErrExists) {
			b.t.Fatalf("%s: %v", cluster.RefOf(o), err)
		}
	}
	b.sim.Advance(2 * time.Minute)
}

func (b *bench) call(name string, kwargs ...starlark.Tuple) (any, error) {
	b.t.Helper()
	s := b.specs["istioctl."+name]
	a, err := s.Unpack(nil, kwargs)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.Do(&builtin.Call{
		Ctx: context.Background(), Env: &env.Env{Clock: b.sim.Clock()}, Reader: b.client, Blobs: b.blobs,
		Run: builtin.RunInfo{ID: "run-1", From: "1.30.3", To: "1.31.0"}, Facts: &b.facts,
		Note: b.facts.Add, Progress: func(int, int, string) {},
	}, a)
}

func arg(name string, v starlark.Value) starlark.Tuple {
	return starlark.Tuple{starlark.String(name), v}
}

func (b *bench) must(name string, kwargs ...starlark.Tuple) any {
	b.t.Helper()
	v, err := b.call(name, kwargs...)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *bench) manifest(kwargs ...starlark.Tuple) *manifest.Manifest {
	b.t.Helper()
	return b.must("manifest", kwargs...).(*manifest.Manifest)
}

func TestManifest(t *testing.T) {
	b := newBench(t, "")
	set := starlark.NewDict(1)
	if err := set.SetKey(starlark.String("components.cni.enabled"), starlark.True); err != nil {
		t.Fatal(err)
	}
	m := b.manifest(
		arg("version", starlark.String("1.31.0")), arg("set", set),
		arg("files", starlark.NewList([]starlark.Value{starlark.String("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  hub: mirror.example.com/istio\n")})),
	)
	if m.Version != "1.31.0" || !slices.Contains(m.Components, "cni") {
		t.Errorf("%+v", m.Info)
	}
	objects, err := m.Objects(b.blobs)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, o := range objects {
		found = found || strings.Contains(fmt.Sprint(o.Object), "mirror.example.com/istio/pilot:1.31.0")
	}
	if !found {
		t.Error("the hub of the file is in no image")
	}
	if len(b.facts.Renders) != 1 || b.facts.Renders[0].Digest != m.Digest {
		t.Errorf("facts %+v", b.facts.Renders)
	}
	if _, err := b.call("manifest", arg("files", starlark.NewList([]starlark.Value{starlark.String("kind: Pod")}))); err == nil || !strings.Contains(err.Error(), "files[0]") {
		t.Errorf("error %v, want one that names files[0]", err)
	}
}

func TestVersionCountsWhatIsThere(t *testing.T) {
	b := newBench(t, "")
	empty := b.must("version").(*versions)
	if len(empty.ControlPlane) != 0 || empty.Client != LinkedVersion || len(empty.Skew) != 0 {
		t.Errorf("empty cluster: %+v", empty)
	}
	b.install()
	v := b.must("version").(*versions)
	if len(v.ControlPlane) != 1 || v.ControlPlane[0].Version != "1.30.3" || !v.ControlPlane[0].Ready {
		t.Errorf("control plane %+v", v.ControlPlane)
	}
	if len(v.Outdated) != 0 {
		t.Errorf("outdated %+v, want none", v.Outdated)
	}
	if v.DataPlane["1.30.3"] != v.Proxies || v.Proxies < 4 || v.Oldest != "1.30.3" || len(v.Skew) != 0 {
		t.Errorf("data plane %+v", v)
	}
}

func TestVersionNamesOutdatedWorkloads(t *testing.T) {
	b := newBench(t, "")
	b.install()
	ref := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "istio-system", Name: "istio-sidecar-injector"}
	cm, err := b.client.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	data := cm.Object["data"].(map[string]any)
	data["values"] = strings.ReplaceAll(data["values"].(string), "1.30.3", "1.30.4")
	if _, err := b.client.Replace(t.Context(), cm, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	v := b.must("version").(*versions)
	pods := 0
	for _, w := range v.Outdated {
		pods += w.Pods
		if w.From != "1.30.3" || w.To != "1.30.4" || w.Namespace == "" || w.Name == "" || !strings.HasSuffix(w.Workload, "/"+w.Name) || w.Reason != "its proxy is 1.30.3, injection gives 1.30.4 now" {
			t.Errorf("got %+v", w)
		}
	}
	if pods < 4 || pods > v.Proxies {
		t.Errorf("%d pods are outdated, want most of the %d", pods, v.Proxies)
	}
	if v := b.must("version", arg("data_plane", starlark.False)).(*versions); len(v.Outdated) != 0 {
		t.Errorf("without the data plane: %+v", v.Outdated)
	}
}

func TestSkew(t *testing.T) {
	k, err := knowledge.Default()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		planes, proxies []string
		want            string
	}{
		{[]string{"1.31.0"}, []string{"1.30.3", "1.31.0"}, ""},
		{[]string{"1.31.0"}, []string{"1.29.1"}, "2 minor versions behind"},
		{[]string{"1.30.3"}, []string{"1.31.0"}, "the data plane is ahead"},
		{[]string{"1.30.3", "1.28.10"}, []string{"1.28.9"}, ""},
		{nil, []string{"1.30.3"}, "no control plane"},
	} {
		v := &versions{DataPlane: map[string]int{}, Proxies: len(tc.proxies)}
		for _, p := range tc.proxies {
			v.DataPlane[p]++
		}
		for _, p := range tc.planes {
			v.planes = append(v.planes, controlPlaneOf(p))
		}
		v.judge(k)
		if got := strings.Join(v.Skew, "; "); (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%v over %v: %q, want %q", tc.planes, tc.proxies, got, tc.want)
		}
	}
}

func TestPrecheckNotesWhatItFound(t *testing.T) {
	b := newBench(t, "v1.34.0")
	b.install()
	p := b.must("precheck").(*prechecked)
	if !p.OK || p.Target != "1.31.0" {
		t.Errorf("precheck of a healthy mesh: %+v", p)
	}
	if len(b.facts.Prechecks) != 1 || b.facts.Prechecks[0].Target != "1.31.0" || len(b.facts.Prechecks[0].Errors) != 0 {
		t.Errorf("facts %+v", b.facts.Prechecks)
	}
}

func TestNotesOfThisMesh(t *testing.T) {
	b := newBench(t, "v1.34.0")
	b.install()
	if n := b.must("notes").(*upgradeNotes); len(n.Detected) != 0 || n.Since != "1.30.3" || n.To != "1.31.0" || !slices.Contains(n.Clear, "istio-1.31-upstream-span") {
		t.Errorf("notes of a plain mesh: %+v", n)
	}
	istiod := cluster.Ref{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "istio-system", Name: "istiod"}
	patch := `[{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "PILOT_SPAWN_UPSTREAM_SPAN_FOR_GATEWAY", "value": "false"}}]`
	if _, err := b.client.Patch(context.Background(), istiod, types.JSONPatchType, []byte(patch), cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	n := b.must("notes", arg("since", starlark.String("1.29.6"))).(*upgradeNotes)
	i := slices.IndexFunc(n.Detected, func(n upgradeNote) bool { return n.ID == "istio-1.31-upstream-span" })
	if i < 0 || !strings.Contains(strings.Join(n.Detected[i].Objects, ""), "deployment.apps/istiod in istio-system sets PILOT_SPAWN") {
		t.Errorf("notes: %+v", n.Detected)
	}
	if len(n.Look) == 0 {
		t.Error("1.30 has notes that a person has to look at")
	}
	if _, err := b.call("notes", arg("to", starlark.String("1.99.0"))); err != nil {
		t.Errorf("an unknown version: %v", err)
	}
}

func TestPrecheckOfWhoMayNotInstall(t *testing.T) {
	b := newBench(t, "v1.34.0")
	b.install()
	b.sim.Deny(sim.DenyRule{Verb: "create", Resource: "clusterroles"})
	p := b.must("precheck").(*prechecked)
	if !p.OK || len(p.Warnings) != 0 {
		t.Errorf("an upgrade need not create any ClusterRole: %+v", p)
	}
	if all := strings.Join(p.Messages, "\n"); !strings.Contains(all, "Info: Cluster: Missing required permission to create resource clusterroles") {
		t.Errorf("messages:\n%s", all)
	}
}

func TestPrecheckFindsWhatIstioctlDoesNot(t *testing.T) {
	b := newBench(t, "v1.37.0")
	b.install()
	cm := cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "istio-system", Name: "istio-sidecar-injector"}
	live, err := b.client.Get(context.Background(), cm)
	if err != nil {
		t.Fatal(err)
	}
	data := live.Object["data"].(map[string]any)
	data["values"] = `{"global":{"hub":"docker.io/istio","tag":"1.30.3"},"pilot":{"cni":{"enabled":true}}}`
	if _, err := b.client.Replace(context.Background(), live, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	p := b.must("precheck", arg("version", starlark.String("1.32.0"))).(*prechecked)
	if all := strings.Join(append(p.Errors, p.Warnings...), "\n"); !strings.Contains(all, "no table says which versions Istio 1.32.0 supports") {
		t.Errorf("findings:\n%s", all)
	}
	p = b.must("precheck").(*prechecked)
	all := strings.Join(p.Errors, "\n")
	for _, want := range []string{"Kubernetes v1.37.0: Istio 1.31 supports 1.32–1.36", "counts on Istio CNI"} {
		if !strings.Contains(all, want) {
			t.Errorf("errors lack %q:\n%s", want, all)
		}
	}
	p = b.must("precheck", arg("version", starlark.String("1.29.6"))).(*prechecked)
	if all := strings.Join(p.Errors, "\n"); !strings.Contains(all, "a downgrade") || !strings.Contains(all, "the data plane is ahead") {
		t.Errorf("errors of a downgrade:\n%s", all)
	}
}

func TestVerifyInstall(t *testing.T) {
	b := newBench(t, "")
	b.install()
	m := b.manifest()
	v := b.must("verify_install", arg("manifest", m), arg("raise_", starlark.False)).(*verification)
	if v.OK || len(v.Mismatches) == 0 || v.Checked != len(m.Refs) {
		t.Errorf("before the upgrade: %d mismatches of %d", len(v.Mismatches), v.Checked)
	}
	_, err := b.call("verify_install", arg("manifest", m))
	if err == nil || !strings.Contains(err.Error(), "deployment.apps/istiod in istio-system differs") {
		t.Errorf("error %v", err)
	}
	objects, err := m.Objects(b.blobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if _, err := b.client.Apply(context.Background(), o.DeepCopy(), cluster.ApplyOptions{Force: true}); err != nil {
			t.Fatalf("%s: %v", cluster.RefOf(o), err)
		}
	}
	v = b.must("verify_install", arg("manifest", m), arg("raise_", starlark.False)).(*verification)
	for _, bad := range v.Mismatches {
		if !strings.HasPrefix(bad.Problem, "is not ready") {
			t.Errorf("while it rolls: %+v", bad)
		}
	}
	b.sim.Advance(2 * time.Minute)
	if v := b.must("verify_install", arg("manifest", m)).(*verification); !v.OK || v.Checked != len(m.Refs) {
		t.Errorf("after the upgrade: %+v", v)
	}
}

func TestAnalyzeFilesAlone(t *testing.T) {
	b := newBench(t, "")
	const vs = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web.example.com]
  gateways: [nowhere]
  http:
  - route: [{destination: {host: web}}]
`
	a := b.must("analyze", arg("cluster", starlark.False), arg("files", starlark.NewList([]starlark.Value{starlark.String(vs)}))).(*analysis)
	if a.OK || !strings.Contains(strings.Join(a.Errors, "\n"), "nowhere") {
		t.Errorf("%+v", a)
	}
}

func controlPlaneOf(version string) rmesh.ControlPlane {
	return rmesh.ControlPlane{Version: version, Revision: rmesh.DefaultRevision}
}
