//go:build e2e

package injection

import (
	"context"
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

var record = flag.Bool("record", false, "write the real decisions to testdata")

// TestMain leaves out, unless -run says what is wanted, what needs no real istiod,
// which runs without the tag e2e.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" {
		if err := flag.Set("test.run", "^TestReal"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// TestRealDecisionsAsRecorded brings both control planes up for real and lets
// every pod meet every namespace.
func TestRealDecisionsAsRecorded(t *testing.T) {
	ctx := t.Context()
	b, err := plane.Ensure(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plane.Start(ctx, plane.Options{Binaries: b, FirstPort: 27200})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	old, next := manifests(t)
	if err := p.InstallIstio(ctx, oldVersion, old); err != nil {
		t.Fatal(err)
	}
	if err := p.InstallIstio(ctx, newVersion, next); err != nil {
		t.Fatal(err)
	}
	tag := slices.DeleteFunc(mesh.Build(mesh.Spec{Istio: newVersion, Revision: canary, Nodes: 1, Seed: 1}, next), func(o *plane.Object) bool {
		return o.GetLabels()["istio.io/tag"] == ""
	})
	if err := p.Apply(ctx, "kubectl", tag...); err != nil {
		t.Fatal(err)
	}
	if err := p.AwaitWebhooks(ctx, tag...); err != nil {
		t.Fatal(err)
	}
	got := decide(t, newClient(t, p.Config(), moment))
	if *record {
		if err := os.WriteFile(golden, format(t, got), 0o644); err != nil { //nolint:gosec // no secret
			t.Fatal(err)
		}
		return
	}
	same(t, recorded(t), got, whole)
	t.Logf("%d decisions", len(got))
}

// moment is a moment of real time.
func moment(ctx context.Context) error {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
