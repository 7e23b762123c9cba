package kube

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"go.starlark.net/starlark"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// adoptAll: the simulated install's objects belong to its own managers.
func adoptAll() starlark.Tuple {
	return kw("adopt", starlark.NewList([]starlark.Value{starlark.String("istio-operator"), starlark.String("before-first-apply")}))
}

func TestApplyUpgradesInOrder(t *testing.T) {
	b := newBench(t)
	got := b.Must("kube.apply", starlark.Tuple{b.Manifest()}, kw("prune", starlark.True), adoptAll()).(map[string]any)
	if len(got["applied"].([]any)) == 0 {
		t.Fatal("nothing was applied")
	}
	last := manifest.CRDs
	for _, e := range b.Sent {
		stage := manifest.Inventory
		switch {
		case e.Verb == effect.Delete:
			stage = manifest.Prune
		case !strings.HasPrefix(e.Ref.Name, "rutter-inventory"):
			stage = manifest.StageOf(cmp.Or(e.After, e.Before))
		}
		if stage < last {
			t.Errorf("%s (%s) came after stage %s", e.Ref, stage, last)
		}
		last = stage
	}
	image := b.Get("Deployment", "apps", "istio-system", "istiod").Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["image"]
	if !strings.HasSuffix(image.(string), "1.31.0") {
		t.Errorf("image: got %v", image)
	}
	b.Sent = nil
	again := b.Must("kube.apply", starlark.Tuple{b.Manifest()}, kw("prune", starlark.True), adoptAll()).(map[string]any)
	if len(b.Sent) != 0 {
		t.Errorf("applying again sent %d effects, first %s; got %v", len(b.Sent), b.Sent[0].Ref, again)
	}
}

func TestApplyReportsConflictsToTheGate(t *testing.T) {
	b := newBench(t)
	s := b.Spec("kube.apply")
	a, err := s.Unpack(starlark.Tuple{b.Manifest()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.PlanCall(b.NewCall(), a)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Effects, func(e *effect.Effect) bool { return e.Ref.Kind == "Deployment" && e.Ref.Name == "istiod" })
	if i < 0 || p.Effects[i].After != nil || p.Effects[i].Before == nil {
		t.Errorf("want an effect for istiod with a before-image and without a forecast; got index %d", i)
	}
}

func TestApplyFailsWithEvidence(t *testing.T) {
	b := newBench(t)
	text := `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  progressDeadlineSeconds: 60
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {sim.rutter.dev/ready: never}}
    spec: {containers: [{name: web, image: registry.example/web:1-bad}]}
`
	_, err := b.Call("kube.apply", starlark.Tuple{starlark.String(text)}, kw("wait", starlark.String("5m")))
	if err == nil || !strings.Contains(err.Error(), "deployment.apps/web in default") {
		t.Fatalf("got %v, want an error that names the Deployment", err)
	}
	if len(b.Events) == 0 {
		t.Error("no evidence was shown")
	}
}

func TestPruneSeedsFromLabelsAndSparesOthers(t *testing.T) {
	b := newBench(t)
	labels := "operator.istio.io/component: Pilot, install.operator.istio.io/owning-resource: unknown"
	extra := `
apiVersion: v1
kind: ConfigMap
metadata: {name: old, namespace: istio-system, labels: {` + labels + `}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other-revision, namespace: istio-system, labels: {istio.io/rev: canary, ` + labels + `}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign, namespace: istio-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: tagged, namespace: istio-system, labels: {istio.io/tag: prod, ` + labels + `}}
`
	b.Must("kube.apply", starlark.Tuple{starlark.String(extra)})
	got := b.Must("kube.apply", starlark.Tuple{b.Manifest()}, kw("prune", starlark.True), adoptAll()).(map[string]any)
	for name, there := range map[string]bool{"old": false, "other-revision": true, "foreign": true, "tagged": true} {
		if (b.Get("ConfigMap", "", "istio-system", name) != nil) != there {
			t.Errorf("%s: want there=%t; pruned %v, left %v", name, there, got["pruned"], got["left"])
		}
	}
	if b.Get("ConfigMap", "", "istio-system", "rutter-inventory-istio") == nil {
		t.Error("no inventory was written")
	}
	// From now on the inventory says what was brought: what is dropped from the
	// manifest goes, what merely looks alike stays.
	m, err := manifest.New(slices.DeleteFunc(target(t), func(o *cluster.Object) bool { return o.GetKind() == "HorizontalPodAutoscaler" }), manifest.Info{Version: "1.31.0"}, b.Blobs)
	if err != nil {
		t.Fatal(err)
	}
	b.Must("kube.apply", starlark.Tuple{starlark.String("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: alike, namespace: istio-system, labels: {" + labels + "}}\n")})
	b.Must("kube.apply", starlark.Tuple{m}, kw("prune", starlark.True), adoptAll())
	if b.Get("ConfigMap", "", "istio-system", "alike") == nil {
		t.Error("an object that no manifest brought was pruned")
	}
}

func TestSecretsAreMasked(t *testing.T) {
	b := newBench(t)
	b.Must("kube.apply", starlark.Tuple{starlark.String("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: default}\nstringData: {k: hunter2}\n")})
	got := b.Must("kube.get", starlark.Tuple{starlark.String("secret/s")}, kw("namespace", starlark.String("default"))).(*value.Object)
	text := got.String()
	if strings.Contains(text, "hunter2") || strings.Contains(text, "aHVudGVyMg") || !strings.Contains(text, `"keys":["k"]`) {
		t.Errorf("got %s", text)
	}
	if _, err := (&value.Codec{}).Encode(got); err != nil {
		t.Errorf("a masked Secret must be recordable without a key: %v", err)
	}
}

func TestPatchLabelDeleteWait(t *testing.T) {
	b := newBench(t)
	ns := kw("namespace", starlark.String("istio-system"))
	istiod := starlark.Tuple{starlark.String("deploy/istiod")}
	set := starlark.NewDict(1)
	if err := set.SetKey(starlark.String("team"), starlark.String("mesh")); err != nil {
		t.Fatal(err)
	}
	if got := b.Must("kube.label", istiod, kw("set", set), ns); got != true {
		t.Errorf("label: got %v", got)
	}
	if got := b.Must("kube.label", istiod, kw("set", set), ns); got != false {
		t.Errorf("label again: got %v, want no effect", got)
	}
	b.Must("kube.wait", istiod, ns)
	b.Must("kube.wait", istiod, ns, kw("condition", starlark.String("condition=Available")))
	if _, err := b.Call("kube.wait", istiod, ns, kw("condition", starlark.String("metadata.name=other")), kw("timeout", starlark.String("5s"))); err == nil || !strings.Contains(err.Error(), "metadata.name is istiod, want other") {
		t.Errorf("got %v", err)
	}
	b.Must("kube.apply", starlark.Tuple{starlark.String("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")}, ns)
	if got := b.Must("kube.delete", starlark.Tuple{starlark.String("cm/x")}, ns); got != true {
		t.Errorf("delete: got %v", got)
	}
	if got := b.Must("kube.exists", starlark.Tuple{starlark.String("cm/x")}, ns); got != false {
		t.Errorf("exists: got %v", got)
	}
	if got := b.Must("kube.delete", starlark.Tuple{starlark.String("cm/x")}, ns); got != false {
		t.Errorf("delete again: got %v", got)
	}
	if text := b.Must("kube.describe", istiod, ns).(string); !strings.Contains(text, "ready: true") {
		t.Errorf("describe: %s", text)
	}
}

// TestAdoptDropsWhatTheManifestLacks: the forecast says what goes, the apply
// makes it so, and what others own stays.
func TestAdoptDropsWhatTheManifestLacks(t *testing.T) {
	for _, op := range []string{"Apply", "Update"} {
		t.Run(op, func(t *testing.T) {
			b := newBench(t)
			install(b, op, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, labels: {old: "1", kept: "1", shared: "1"}}
spec:
  replicas: 3
  minReadySeconds: 5
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {disk: ssd}
      containers:
      - {name: web, image: "registry.example/web:1", env: [{name: A, value: "1"}, {name: B, value: "2"}]}
      - {name: helper, image: "registry.example/helper:1"}
`)
			apply(b, "somebody", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default, labels: {shared: \"1\"}}\n")
			text := starlark.String(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default, labels: {kept: "1"}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "registry.example/web:2", env: [{name: A, value: "1"}]}
`)
			objs, err := manifest.Parse(string(text))
			if err != nil {
				t.Fatal(err)
			}
			p, err := manifest.Plan(t.Context(), b.Client, objs, manifest.Options{Adopt: []string{"installer"}})
			if err != nil || len(p.Effects) != 2 || !manifest.IsMove(p.Effects[0]) {
				t.Fatalf("got %d effects, %v; want a move and an apply", len(p.Effects), err)
			}
			if n := strings.Join(p.Notes, "\n"); !strings.Contains(n, "deployment.apps/web in default: drops") || !strings.Contains(n, "installer set it") || strings.Contains(n, "assumed") {
				t.Errorf("notes: %s", n)
			}
			b.Sent = nil
			b.Must("kube.apply", starlark.Tuple{text}, kw("adopt", starlark.NewList([]starlark.Value{starlark.String("installer")})), kw("wait", starlark.String("0s")))
			if len(b.Sent) != 2 || p.Effects[1].Digest() != b.Sent[1].Digest() {
				t.Errorf("sent %d effects; want the two that were forecast", len(b.Sent))
			}
			live := b.Get("Deployment", "apps", "default", "web")
			want, err := cluster.Digest(p.Effects[1].After)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := cluster.Digest(live); err != nil || got != want {
				t.Errorf("what was forecast is not what came: %v\nforecast %v\nlive     %v", err, p.Effects[1].After.Object["spec"], live.Object["spec"])
			}
			spec := live.Object["spec"].(map[string]any)
			pod := spec["template"].(map[string]any)["spec"].(map[string]any)
			containers := pod["containers"].([]any)
			if spec["replicas"] != int64(1) || spec["minReadySeconds"] != nil || pod["nodeSelector"] != nil || len(containers) != 1 || len(containers[0].(map[string]any)["env"].([]any)) != 1 {
				t.Errorf("spec: %v", spec)
			}
			if l := live.GetLabels(); len(l) != 2 || l["kept"] == "" || l["shared"] == "" {
				t.Errorf("labels: %v", l)
			}
			for _, m := range live.GetManagedFields() {
				if m.Manager == "installer" {
					t.Errorf("installer still owns %s", m.FieldsV1)
				}
			}
			b.Sent = nil
			b.Must("kube.apply", starlark.Tuple{text}, kw("adopt", starlark.NewList([]starlark.Value{starlark.String("installer")})), kw("wait", starlark.String("0s")))
			if len(b.Sent) != 0 {
				t.Errorf("again: sent %d effects, first %s %s", len(b.Sent), b.Sent[0].Verb, b.Sent[0].Ref)
			}
		})
	}
}

// install makes an object as an installer does: by server-side apply, or by a
// create as Helm and kubectl do.
func install(b *bench, op, text string) {
	b.T.Helper()
	if op == "Apply" {
		apply(b, "installer", text)
		return
	}
	objs, err := manifest.Parse(text)
	if err != nil {
		b.T.Fatal(err)
	}
	if _, err := b.Client.Create(b.T.Context(), objs[0], cluster.WriteOptions{Manager: "installer"}); err != nil {
		b.T.Fatal(err)
	}
}

func apply(b *bench, manager, text string) {
	b.T.Helper()
	objs, err := manifest.Parse(text)
	if err != nil {
		b.T.Fatal(err)
	}
	if _, err := b.Client.Apply(b.T.Context(), objs[0], cluster.ApplyOptions{Manager: manager}); err != nil {
		b.T.Fatal(err)
	}
}

func TestAdoptUnitesWithWhatRutterOwns(t *testing.T) {
	b := newBench(t)
	text := func(data string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}\ndata: {" + data + "}\n"
	}
	apply(b, "first", text(`a: "1"`))
	apply(b, "second", text(`b: "1"`))
	apply(b, cluster.FieldManager, text(`c: "1"`))
	adopt := kw("adopt", starlark.NewList([]starlark.Value{starlark.String("first"), starlark.String("second")}))
	b.Must("kube.apply", starlark.Tuple{starlark.String(text(`c: "2"`))}, adopt)
	data := b.Get("ConfigMap", "", "default", "x").Object["data"].(map[string]any)
	if len(data) != 1 || data["c"] != "2" {
		t.Errorf("got %v", data)
	}
}

// TestAdoptLeavesTheInstallersMarks: istioctl uninstall and Helm find by them
// what is theirs.
func TestAdoptLeavesTheInstallersMarks(t *testing.T) {
	b := newBench(t)
	apply(b, "istio-operator", `
apiVersion: v1
kind: ConfigMap
metadata:
  name: x
  namespace: default
  labels: {install.operator.istio.io/owning-resource: unknown, operator.istio.io/component: Pilot, old: "1"}
  annotations: {meta.helm.sh/release-name: istiod}
data: {a: "1", b: "1"}
`)
	b.Must("kube.apply", starlark.Tuple{starlark.String("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}\ndata: {a: \"1\"}\n")},
		kw("adopt", starlark.NewList([]starlark.Value{starlark.String("istio-operator")})))
	o := b.Get("ConfigMap", "", "default", "x")
	if l := o.GetLabels(); len(l) != 2 || o.GetAnnotations()["meta.helm.sh/release-name"] == "" || len(o.Object["data"].(map[string]any)) != 1 {
		t.Errorf("got %v", o.Object)
	}
	owned, err := cluster.Owned(o, func(m metav1.ManagedFieldsEntry) bool { return m.Manager == "istio-operator" })
	if err != nil || owned.Leaves().Size() != 3 {
		t.Errorf("istio-operator owns %v, %v; want its three marks", owned, err)
	}
}

func TestAdoptLeavesUnchangedObjectsWithTheirOwner(t *testing.T) {
	b := newBench(t)
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}\ndata: {a: \"1\"}\n"
	apply(b, "installer", text)
	objs, err := manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := manifest.Plan(t.Context(), b.Client, objs, manifest.Options{Adopt: []string{"installer"}})
	if err != nil || len(p.Effects) != 0 || len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "keep installer as owner") {
		t.Errorf("got %d effects, notes %q, %v", len(p.Effects), p.Notes, err)
	}
}
