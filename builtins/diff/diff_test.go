package diff

import (
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/archive"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/manifest"
)

func adopt() starlark.Tuple {
	return kw("adopt", starlark.NewList([]starlark.Value{starlark.String("istio-operator")}))
}

func TestLiveCoversWhatApplyPlans(t *testing.T) {
	b := newBench(t)
	m := b.Manifest()
	r := b.Must("diff.live", starlark.Tuple{m}, adopt()).(*Result)
	if len(r.Items) == 0 || len(b.Facts.Diffs) != 2 || b.Facts.Diffs[0].ID != r.ID {
		t.Fatalf("got %d items, facts %v", len(r.Items), b.Facts.Diffs)
	}
	objs, err := m.Objects(b.Blobs)
	if err != nil {
		t.Fatal(err)
	}
	p, err := manifest.Plan(t.Context(), b.Client, objs, manifest.Options{Prune: true, Adopt: []string{"istio-operator"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range p.Effects {
		fact := b.Facts.Diffs[0]
		if manifest.IsMove(e) {
			fact = b.Facts.Diffs[1]
		}
		if p.Stages[i] != manifest.Inventory && fact.Objects[e.Ref.ID()] != e.Digest() {
			t.Errorf("%s: the digest of the diff is not that of the apply", e.Ref)
		}
	}
	d, ok := b.Events[0].(*event.Diff)
	if !ok || !strings.Contains(d.Text, "+        image: ") && !strings.Contains(d.Text, "+      - image: ") {
		t.Errorf("the text shows no image: %s", r.Text)
	}
	for _, noise := range []string{"managedFields", "resourceVersion", "creationTimestamp", "rutter.dev/run"} {
		if strings.Contains(r.Text, noise) {
			t.Errorf("the text holds %s", noise)
		}
	}
	raw, err := r.EncodeHandle()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(raw)
	if err != nil || back.(*Result).ID != r.ID || back.(*Result).Text != r.Text {
		t.Errorf("decoded: %v, %v", back, err)
	}
	again := b.Must("diff.live", starlark.Tuple{m}, adopt()).(*Result)
	if again.ID != r.ID {
		t.Error("the same diff has two ids")
	}
}

// What a diff notes and shows of a Secret is the run's digest of it, not the plain
// one, which would confirm a guess.
func TestLiveHasTheRunsDigest(t *testing.T) {
	b := newBench(t)
	b.Run.Digest = func(e *effect.Effect) string { return "the run's, of " + e.Ref.ID() }
	const pin = "apiVersion: v1\nkind: Secret\nmetadata: {name: pin, namespace: default}\nstringData: {pin: '4711'}\n"
	r := b.Must("diff.live", starlark.Tuple{starlark.String(pin)}).(*Result)
	if len(r.Items) != 1 || len(b.Facts.Diffs) != 1 {
		t.Fatalf("%d items, facts %v; want one of each", len(r.Items), b.Facts.Diffs)
	}
	id := r.Items[0].Ref.ID()
	if want := "the run's, of " + id; r.Items[0].Effect != want || b.Facts.Diffs[0].Objects[id] != want {
		t.Errorf("item %q, fact %q; want %q", r.Items[0].Effect, b.Facts.Diffs[0].Objects[id], want)
	}
	b.Run.Digest = func(*effect.Effect) string { return "another" }
	if again := b.Must("diff.live", starlark.Tuple{starlark.String(pin)}).(*Result); again.ID == r.ID {
		t.Error("its id does not depend on the run's digest: it is made from another")
	}
}

func TestLiveShowsRefusals(t *testing.T) {
	b := newBench(t)
	r := b.Must("diff.live", starlark.Tuple{b.Manifest()}).(*Result)
	if !strings.Contains(r.Text, "is owned by istio-operator") {
		t.Errorf("no conflict is shown: %s", r.Text)
	}
}

func TestRisks(t *testing.T) {
	deploy := func(image, uid string) string {
		return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: x}\nspec: {template: {spec: {containers: [{name: c, image: " + image + ", securityContext: {runAsUser: " + uid + "}}]}}}\n"
	}
	service := func(kind string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: x}\nspec: {type: " + kind + "}\n"
	}
	for _, tc := range []struct{ name, a, b, want string }{
		{"image", deploy("r/p:1", "1"), deploy("r/p:2", "1"), "image"},
		{"security", deploy("r/p:1", "1"), deploy("r/p:1", "2"), "security-context"},
		{"service", service("LoadBalancer"), service("ClusterIP"), "service-type"},
		{"both", deploy("r/p:1", "1"), deploy("r/p:2", "2"), "security-context,image"},
		{"cni", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-cni-config, namespace: x}\ndata: {a: b}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-cni-config, namespace: x}\ndata: {a: c}\n", "cni-sidecar"},
		{"rbac", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\nrules: []\n", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\nrules: [{verbs: [get]}]\n", "rbac"},
	} {
		a, err := manifest.Parse(tc.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := manifest.Parse(tc.b)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(risks(cluster.RefOf(a[0]), a[0], b[0]), ","); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
		if got := risks(cluster.RefOf(a[0]), a[0], nil); got[0] != riskRemoval {
			t.Errorf("%s removed: got %v", tc.name, got)
		}
	}
}

func TestUnifiedMasksSecretsAndCountsLines(t *testing.T) {
	secret := func(v string) *cluster.Object {
		o, err := manifest.Parse("apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: x}\nstringData: {k: " + v + "}\n")
		if err != nil {
			t.Fatal(err)
		}
		return o[0]
	}
	text, err := manifest.Unified(cluster.RefOf(secret("a")), secret("hunter2"), secret("hunter3"))
	if err != nil || strings.Contains(text, "hunter") || !strings.Contains(text, "-  k: <secret, as it was>\n+  k: <secret, another>\n") {
		t.Errorf("got %s, %v", text, err)
	}
	long := func(v string) *cluster.Object {
		var data strings.Builder
		for i := range 50 {
			data.WriteString("  k" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + ": same\n")
		}
		o, err := manifest.Parse("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s, namespace: x}\ndata:\n" + data.String() + "  z: " + v + "\n")
		if err != nil {
			t.Fatal(err)
		}
		return o[0]
	}
	text, err = manifest.Unified(cluster.RefOf(long("a")), long("1x"), long("2x"))
	if err != nil || !strings.Contains(text, "@@ -50,7 +50,7 @@") || !strings.Contains(text, "-  z: 1x\n+  z: 2x\n") {
		t.Errorf("got %s, %v", text, err)
	}
	if text, err := manifest.Unified(cluster.RefOf(long("a")), long("a"), long("a")); err != nil || text != "" {
		t.Errorf("equal: got %q, %v", text, err)
	}
}

func TestManifestsAndBackup(t *testing.T) {
	b := newBench(t)
	a := starlark.String("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: y}\n")
	c := starlark.String("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {x: z}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
	r := b.Must("diff.manifests", starlark.Tuple{a, c}).(*Result)
	if r.Title != "manifests: 1 changed, 1 added, 1 removed" {
		t.Errorf("got %s", r.Title)
	}
	if len(b.Facts.Diffs) != 0 {
		t.Error("comparing two manifests must not establish a review")
	}
	live := b.Get("ConfigMap", "", "istio-system", "istio")
	saved, err := archive.Write([]*cluster.Object{live}, "uid", "run-1", b.Blobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := b.Must("diff.backup", starlark.Tuple{saved}).(*Result); len(r.Items) != 0 {
		t.Errorf("nothing changed, got %s", r.Text)
	}
}

func TestBackupShowsWhatChangedAndWhatIsGone(t *testing.T) {
	b := newBench(t)
	names := []string{"changed", "gone", "same"}
	var objs []*cluster.Object
	for _, name := range names {
		o, err := manifest.Parse("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: default}\ndata: {k: old}\n")
		if err != nil {
			t.Fatal(err)
		}
		live, err := b.Client.Create(t.Context(), o[0], cluster.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		objs = append(objs, live)
	}
	saved, err := archive.Write(objs, "uid", "run-1", b.Blobs, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := objs[0].DeepCopy()
	changed.Object["data"] = map[string]any{"k": "new"}
	if _, err := b.Client.Replace(t.Context(), changed, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.Client.Delete(t.Context(), cluster.RefOf(objs[1]), cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	r := b.Must("diff.backup", starlark.Tuple{saved}).(*Result)
	if r.Title != "since the backup: 1 changed, 0 added, 1 removed" {
		t.Errorf("got %s", r.Title)
	}
	for _, want := range []string{"-  k: old", "+  k: new", "configmap/gone in default"} {
		if !strings.Contains(r.Text, want) {
			t.Errorf("no %q in:\n%s", want, r.Text)
		}
	}
	if len(b.Facts.Diffs) != 0 {
		t.Error("comparing with a backup must not establish a review")
	}
	// A blob that is not what it was is not compared with.
	for digest := range b.Blobs {
		if digest == saved.Digest {
			b.Blobs[digest] = append(b.Blobs[digest], 'x')
		}
	}
	if _, err := b.Call("diff.backup", starlark.Tuple{saved}); err == nil {
		t.Error("a damaged backup was read")
	}
}
