package backup

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/archive"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/seal"
)

func (b *bench) create() *archive.Backup {
	b.T.Helper()
	return b.Must("backup.create", nil).(*archive.Backup)
}

// state is the normal form of everything that the mesh's scope holds.
func (b *bench) state() map[string]string {
	b.T.Helper()
	objs, err := collect(b.NewCall(), &Scope{})
	if err != nil {
		b.T.Fatal(err)
	}
	out := map[string]string{}
	for _, o := range objs {
		d, err := cluster.Digest(o)
		if err != nil {
			b.T.Fatal(err)
		}
		out[cluster.RefOf(o).ID()] = d
	}
	return out
}

func (b *bench) apply(text string) {
	b.T.Helper()
	objs, err := manifest.Parse(text)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, o := range objs {
		o.SetAnnotations(map[string]string{cluster.AnnotationRun: b.Run.ID})
		if _, err := b.Client.Apply(context.Background(), o, cluster.ApplyOptions{Force: true}); err != nil {
			b.T.Fatal(err)
		}
	}
}

const route = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: default}
spec: {hosts: [HOST]}
`

func TestRestoreBringsBackWhatWas(t *testing.T) {
	b := newBench(t)
	b.apply(strings.NewReplacer("NAME", "kept", "HOST", "a.example").Replace(route))
	b.Settle()
	before := b.state()
	saved := b.create()
	if len(b.Facts.Backups) != 1 || !b.Facts.Backups[0].Verified {
		t.Fatalf("facts: %+v", b.Facts.Backups)
	}
	for _, id := range []string{
		"customresourcedefinition.apiextensions.k8s.io//virtualservices.networking.istio.io", "virtualservice.networking.istio.io/default/kept",
		"deployment.apps/istio-system/istiod", "mutatingwebhookconfiguration.admissionregistration.k8s.io//istio-sidecar-injector",
		"configmap/istio-system/istio", "namespace//istio-system",
	} {
		if b.Facts.Backups[0].Covers[id] == "" {
			t.Errorf("%s is not covered", id)
		}
	}
	// Damage: one changed, one deleted, one made by the run.
	b.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'changed: true'}\n")
	ref := cluster.Ref{Group: "networking.istio.io", Version: "v1", Kind: "VirtualService", Namespace: "default", Name: "kept"}
	if err := b.Client.Delete(context.Background(), ref, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.apply(strings.NewReplacer("NAME", "new", "HOST", "b.example").Replace(route))
	b.Settle()

	got := b.Must("backup.restore", starlark.Tuple{saved}).(map[string]any)
	b.Settle()
	after := b.state()
	for id, d := range before {
		if after[id] != d {
			t.Errorf("%s: is not what it was", id)
		}
	}
	for id := range after {
		if before[id] == "" {
			t.Errorf("%s: came later and is still there", id)
		}
	}
	if len(got["restored"].([]any)) != 1 || len(got["recreated"].([]any)) != 1 || len(got["deleted"].([]any)) != 1 {
		t.Errorf("got %v", got)
	}
	b.Sent = nil
	b.Must("backup.restore", starlark.Tuple{saved})
	if len(b.Sent) != 0 {
		t.Errorf("a second restore sent %d effects, first %s", len(b.Sent), b.Sent[0].Ref)
	}
}

const caSecret = "apiVersion: v1\nkind: Secret\nmetadata: {name: cacerts, namespace: istio-system}\ndata: {key: aHVudGVyMg==}\n"

func TestSecretsWithoutKeyAreLeftOutAndNotCovered(t *testing.T) {
	b := newBench(t)
	b.apply(caSecret)
	saved := b.create()
	// The simulated control plane has a CA of its own beside it.
	if len(saved.Left) != 2 || saved.Left[0].Name != "cacerts" || saved.Left[1].Name != "istio-ca-secret" {
		t.Errorf("left out: %v", saved.Left)
	}
	if b.Facts.Backups[0].Covers["secret/istio-system/cacerts"] != "" {
		t.Error("the Secret counts as covered")
	}
	if len(b.Events) == 0 {
		t.Error("nothing was said about it")
	}
}

func TestSecretsAreSealed(t *testing.T) {
	b := newBench(t)
	s, err := seal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.Run.Secrets = s
	b.apply(caSecret)
	saved := b.create()
	if saved.Sealed != 2 || len(saved.Left) != 0 || b.Facts.Backups[0].Covers["secret/istio-system/cacerts"] == "" {
		t.Fatalf("got %v", saved)
	}
	entries, err := archive.Read(saved, b.Blobs, s)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range entries {
		if e.Ref.Name == "cacerts" {
			found = e.Object.Object["data"].(map[string]any)["key"] == "aHVudGVyMg=="
		}
	}
	if !found {
		t.Error("the Secret did not come back as it was")
	}
	b.Run.Secrets = nil
	if _, err := b.Call("backup.verify", starlark.Tuple{saved}); err == nil || !strings.Contains(err.Error(), "age key") {
		t.Errorf("without the key: got %v", err)
	}
}

func TestDamageIsFound(t *testing.T) {
	b := newBench(t)
	saved := b.create()
	raw := append([]byte(nil), b.Blobs[saved.Digest]...)
	raw[len(raw)/2] ^= 1
	b.Blobs[saved.Digest] = raw
	if _, err := b.Call("backup.verify", starlark.Tuple{saved}); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if len(b.Facts.Backups) != 1 {
		t.Error("a damaged backup must not establish a fact")
	}
}

func TestRestoreRefusesAnotherCluster(t *testing.T) {
	b := newBench(t)
	saved := b.create()
	other := *saved
	other.ClusterUID = "somewhere-else"
	if _, err := b.Call("backup.restore", starlark.Tuple{&other}); err == nil || !strings.Contains(err.Error(), "is of cluster somewhere-else") {
		t.Errorf("got %v", err)
	}
}
