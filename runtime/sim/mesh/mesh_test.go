package mesh

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"rutter.dev/rutter/runtime/sim"
)

// readManifest decodes a stream of YAML documents.
func readManifest(t *testing.T, path string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range strings.Split("\n"+string(data), "\n---") {
		raw, err := yaml.ToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if string(raw) == "null" {
			continue
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

func smallManifest(t *testing.T) []*unstructured.Unstructured {
	return readManifest(t, filepath.Join("testdata", "small-1.31.0.yaml"))
}

func dump(t *testing.T, all []*unstructured.Unstructured) string {
	t.Helper()
	var b strings.Builder
	for _, o := range all {
		data, err := json.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(data, '\n'))
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for text, want := range map[string]Spec{
		"mesh": {Istio: "1.30.3", Workloads: 60, Namespaces: 12, Nodes: 3, Seed: 1, NoSidecar: 3},
		"mesh,istio=1.29.6,workloads=10,namespaces=2,seed=7,nodes=5,no-sidecar=0,single-replica=1,on-delete=2,strict-pdbs=1,bare-pods=3,revision=1-29-6": {
			Istio: "1.29.6", Workloads: 10, Namespaces: 2, Nodes: 5, Seed: 7, SingleReplica: 1, OnDelete: 2, StrictPDBs: 1, BarePods: 3, Revision: "1-29-6",
		},
		"mesh,workloads=3000":         {Istio: "1.30.3", Workloads: 3000, Namespaces: 400, Nodes: 3, Seed: 1, NoSidecar: 150},
		"mesh,namespaces=3,ambient=2": {Istio: "1.30.3", Workloads: 60, Namespaces: 3, Ambient: 2, Nodes: 3, Seed: 1, NoSidecar: 3},
		"mesh,workloads=0,without-crds=sidecars.networking.istio.io+gateways.networking.istio.io": {
			Istio: "1.30.3", Namespaces: 1, Nodes: 3, Seed: 1, WithoutCRDs: "sidecars.networking.istio.io+gateways.networking.istio.io",
		},
		"mesh,workloads=0": {Istio: "1.30.3", Namespaces: 1, Nodes: 3, Seed: 1},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestParseErrorsSayWhatToType(t *testing.T) {
	for text, part := range map[string]string{
		"mseh":                         `expected it to begin with "mesh"`,
		"mesh,workload=3":              `unknown key "workload"; did you mean "workloads"?`,
		"mesh,zzzzzzzzzz=3":            "known are ambient, bare-pods, istio",
		"mesh,workloads":               "workloads has no value; type workloads=",
		"mesh,workloads=many":          `workloads: "many" is not a number from 0 to 20000`,
		"mesh,workloads=-1":            "is not a number from 0",
		"mesh,istio=1.30":              "is not a version such as 1.30.3",
		"mesh,nodes=0":                 "from 1 to",
		"mesh,seed=1,seed=2":           "seed is given twice",
		"mesh,revision=A_b":            "is not a revision name",
		"mesh,without-crds=a.b+":       `"" is not a name such as sidecars.networking.istio.io`,
		"mesh,workloads=2,on-delete=3": "more than the 2 workloads",
		"mesh,namespaces=2,ambient=3":  "more than the 2 namespaces",
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v, want an error with %q", text, err, part)
		}
	}
}

func TestWithoutCRDs(t *testing.T) {
	manifest := smallManifest(t)
	spec := Default()
	for _, o := range manifest {
		if o.GetKind() == "CustomResourceDefinition" {
			spec.WithoutCRDs = o.GetName()
		}
	}
	got, err := Rendered(spec, manifest)
	if err != nil || len(got) != len(manifest)-1 {
		t.Fatalf("%d of %d objects without %s, %v", len(got), len(manifest), spec.WithoutCRDs, err)
	}
	for _, o := range got {
		if o.GetName() == spec.WithoutCRDs {
			t.Errorf("%s is still there", o.GetName())
		}
	}
	spec.WithoutCRDs += "+nobodys.networking.istio.io"
	if _, err := Rendered(spec, manifest); err == nil || !strings.Contains(err.Error(), "has no CustomResourceDefinition nobodys.networking.istio.io") {
		t.Errorf("got %v, expected it to name what there is not", err)
	}
}

func TestAmbientNamespacesAreTheLast(t *testing.T) {
	spec := Default()
	spec.Namespaces, spec.Ambient = 4, 2
	var modes []string
	for _, o := range Build(spec, smallManifest(t)) {
		if o.GetKind() != "Namespace" || o.GetName() == SystemNamespace {
			continue
		}
		labels := o.GetLabels()
		if labels["istio-injection"] != "" && labels["istio.io/dataplane-mode"] != "" {
			t.Errorf("%s has both modes: %v", o.GetName(), labels)
		}
		modes = append(modes, labels["istio.io/dataplane-mode"])
	}
	if got := strings.Join(modes, ","); got != ",,ambient,ambient" {
		t.Errorf("modes %q", got)
	}
}

func TestBuildIsAFunctionOfItsSpec(t *testing.T) {
	m := smallManifest(t)
	before := dump(t, m)
	spec := Default()
	first, second := dump(t, Build(spec, m)), dump(t, Build(spec, m))
	if first != second {
		t.Error("two builds of one spec differ")
	}
	if dump(t, m) != before {
		t.Error("Build changed its manifest")
	}
	other := spec
	other.Seed = 2
	if dump(t, Build(spec, m)) == dump(t, Build(other, m)) {
		t.Error("the seed changes nothing")
	}
}

func kindsIn(all []*unstructured.Unstructured) map[string]int {
	n := map[string]int{}
	seen := map[string]bool{}
	for _, o := range all {
		key := o.GroupVersionKind().Group + "/" + o.GetKind() + "/" + o.GetNamespace() + "/" + o.GetName()
		if seen[key] {
			n["twice: "+key]++
		}
		seen[key] = true
		n[o.GetKind()]++
	}
	return n
}

func TestBuildHoldsWhatTheSpecSays(t *testing.T) {
	spec := Default()
	spec.SingleReplica, spec.OnDelete, spec.StrictPDBs, spec.BarePods = 2, 2, 1, 4
	all := Build(spec, smallManifest(t))
	n := kindsIn(all)
	for k := range n {
		if strings.HasPrefix(k, "twice") {
			t.Error(k)
		}
	}
	if got := n["Deployment"] - 2 + n["StatefulSet"] + n["DaemonSet"]; got != 60 {
		t.Errorf("%d workloads beside istiod and the gateway", got)
	}
	if n["Node"] != 3 || n["Namespace"] != 13 || n["Pod"] != 4 || n["StatefulSet"] < 3 || n["DaemonSet"] < 2 || n["PodDisruptionBudget"] < 10 {
		t.Errorf("kinds %v", n)
	}
	var single, onDelete, optOut int
	for _, o := range all {
		replicas, ok, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		if o.GetKind() == "Deployment" && o.GetNamespace() != SystemNamespace && ok && replicas == 1 {
			single++
		}
		if s, _, _ := unstructured.NestedString(o.Object, "spec", "updateStrategy", "type"); s == "OnDelete" {
			onDelete++
		}
		if o.GetNamespace() == SystemNamespace {
			continue
		}
		if l, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels"); l["sidecar.istio.io/inject"] == "false" {
			optOut++
		}
	}
	if single != 2 || onDelete != 2 || optOut != 3 {
		t.Errorf("single %d, on-delete %d, opted out %d", single, onDelete, optOut)
	}
}

func TestRevisionMeshHasATag(t *testing.T) {
	m := smallManifest(t)
	spec := Default()
	spec.Revision = "1-31-0"
	for _, o := range m {
		if o.GetKind() == "MutatingWebhookConfiguration" {
			l := o.GetLabels()
			l["istio.io/rev"] = spec.Revision
			o.SetLabels(l)
			o.Object = replaceStrings(o.Object, func(s string) string {
				if s == "default" {
					return spec.Revision
				}
				return s
			}).(object)
		}
	}
	var tagged bool
	for _, o := range Build(spec, m) {
		if o.GetName() == "istio-revision-tag-stable" {
			tagged = o.GetLabels()["istio.io/tag"] == "stable" && o.GetLabels()["istio.io/rev"] == "1-31-0" &&
				strings.Contains(dump(t, []*unstructured.Unstructured{o}), `"values":["stable"]`)
		}
	}
	if !tagged {
		t.Error("no webhook for the tag")
	}
}

func TestReplaceVersion(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io/istio/pilot:1.31.0":            "docker.io/istio/pilot:1.30.3",
		"docker.io/istio/pilot:1.31.0-distroless": "docker.io/istio/pilot:1.30.3-distroless",
		`{"tag": "1.31.0", "x": "1.31.0"}`:        `{"tag": "1.30.3", "x": "1.30.3"}`,
		"21.31.0":                                 "21.31.0",
		"1.31.01":                                 "1.31.01",
		"1.31.0.1":                                "1.31.0.1",
		"0.1.31.0":                                "0.1.31.0",
		"Istio 1.31.0.":                           "Istio 1.30.3.",
	} {
		if got := replaceVersion(in, "1.31.0", "1.30.3"); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestRetagLeavesMoreToDoThanTags(t *testing.T) {
	m := smallManifest(t)
	before := dump(t, m)
	old := Retag(m, "1.31.0", "1.30.3")
	if dump(t, m) != before {
		t.Fatal("Retag changed its input")
	}
	text := dump(t, old)
	if strings.Contains(text, "1.31.0") {
		t.Error("the newer version is still there")
	}
	for _, part := range []string{`docker.io/istio/pilot:1.30.3`, `docker.io/istio/proxyv2:1.30.3`, `\"tag\": \"1.30.3\"`} {
		if !strings.Contains(text, part) {
			t.Errorf("%s is missing", part)
		}
	}
	if len(old) != len(m)-1 || strings.Contains(text, `"kind":"HorizontalPodAutoscaler"`) && strings.Contains(text, `"name":"istio-ingressgateway","namespace":"istio-system"},"spec":{"maxReplicas"`) {
		t.Errorf("%d objects of %d", len(old), len(m))
	}
	if strings.Contains(text, "http2KeepAlive") || strings.Contains(text, "PILOT_TRACE_SAMPLING") {
		t.Error("the schema or the environment of istiod is unchanged")
	}
	if dump(t, Retag(m, "1.31.0", "1.30.3")) != text {
		t.Error("two runs differ")
	}
}

func request(t *testing.T, values string, annotations map[string]any) sim.InjectionRequest {
	t.Helper()
	return sim.InjectionRequest{
		Pod: &unstructured.Unstructured{Object: object{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": object{
				"name": "web-6b7c-x", "namespace": "shop", "annotations": annotations, "labels": object{"pod-template-hash": "6b7c"},
				"ownerReferences": []any{object{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6b7c", "uid": "u", "controller": true}},
			},
			"spec": object{
				"containers":     []any{object{"name": "app", "image": "web:1"}},
				"initContainers": []any{object{"name": "migrate", "image": "web:1"}},
			},
		}},
		Revision: "default", InjectorConfig: map[string]string{"values": values},
	}
}

func names(pod *unstructured.Unstructured, field string) string {
	list, _, _ := unstructured.NestedSlice(pod.Object, "spec", field)
	var out []string
	for _, c := range list {
		name, _ := c.(object)["name"].(string)
		image, _ := c.(object)["image"].(string)
		out = append(out, name+"="+image)
	}
	return strings.Join(out, " ")
}

func TestStubInjector(t *testing.T) {
	values := `{"global": {"hub": "docker.io/istio", "tag": "1.30.3", "proxy": {"image": "proxyv2"}}, "pilot": {"cni": {"enabled": false}}}`
	pod, err := StubInjector{}.Inject(request(t, values, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(pod, "initContainers"); got != "istio-init=docker.io/istio/proxyv2:1.30.3 istio-proxy=docker.io/istio/proxyv2:1.30.3 migrate=web:1" {
		t.Errorf("init containers %s", got)
	}
	if got := names(pod, "containers"); got != "app=web:1" {
		t.Errorf("containers %s", got)
	}
	if l := pod.GetLabels(); l["service.istio.io/canonical-name"] != "web" || l["security.istio.io/tlsMode"] != "istio" {
		t.Errorf("labels %v", l)
	}
	var status struct {
		InitContainers []string `json:"initContainers"`
		Revision       string   `json:"revision"`
	}
	if err := json.Unmarshal([]byte(pod.GetAnnotations()["sidecar.istio.io/status"]), &status); err != nil || status.Revision != "default" || len(status.InitContainers) != 2 {
		t.Errorf("status %+v, %v", status, err)
	}
	again, err := StubInjector{}.Inject(sim.InjectionRequest{Pod: pod, InjectorConfig: map[string]string{"values": values}})
	if err != nil || dump(t, []*unstructured.Unstructured{again}) != dump(t, []*unstructured.Unstructured{pod}) {
		t.Errorf("injected twice (%v)", err)
	}
}

func TestStubInjectorFollowsItsConfiguration(t *testing.T) {
	cni := `{"global": {"hub": "reg.example", "tag": "1.26.0", "variant": "distroless", "proxy": {"image": "proxyv2"}}, "pilot": {"cni": {"enabled": true}}}`
	pod, err := StubInjector{}.Inject(request(t, cni, nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(pod, "initContainers"); got != "istio-validation=reg.example/proxyv2:1.26.0-distroless migrate=web:1" {
		t.Errorf("init containers %s", got)
	}
	if got := names(pod, "containers"); got != "istio-proxy=reg.example/proxyv2:1.26.0-distroless app=web:1" {
		t.Errorf("containers of a version without native sidecars: %s", got)
	}
	pod, err = StubInjector{}.Inject(request(t, cni, map[string]any{"sidecar.istio.io/proxyImage": "own/proxy:1", "sidecar.istio.io/nativeSidecar": "true"}))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(pod, "initContainers"); got != "istio-validation=own/proxy:1 istio-proxy=own/proxy:1 migrate=web:1" {
		t.Errorf("with annotations: %s", got)
	}
	if _, err := (StubInjector{}).Inject(request(t, "{", nil)); !errors.Is(err, ErrInjectorConfig) {
		t.Errorf("broken values: %v", err)
	}
}
