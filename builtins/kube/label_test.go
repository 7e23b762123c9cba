package kube

import (
	"slices"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

func labels(t *testing.T, kv ...any) starlark.Tuple {
	t.Helper()
	d := starlark.NewDict(len(kv) / 2)
	for i := 0; i < len(kv); i += 2 {
		var v starlark.Value = starlark.None
		if s, ok := kv[i+1].(string); ok {
			v = starlark.String(s)
		}
		if err := d.SetKey(starlark.String(kv[i].(string)), v); err != nil {
			t.Fatal(err)
		}
	}
	return kw("set", d)
}

// A relabelling of two namespaces is shown with what it leaves to be restarted,
// and binds just the effects that kube.label then makes.
func TestLabelNamespaces(t *testing.T) {
	b := newBench(t)
	var both []starlark.Value
	for _, o := range b.Must("kube.list", starlark.Tuple{starlark.String("namespaces")}).([]*value.Object) {
		if ns := o.Unstructured(); ns.GetLabels()["istio-injection"] == "enabled" {
			both = append(both, starlark.String("namespace/"+ns.GetName()))
		}
	}
	if len(both) < 2 {
		t.Fatalf("the mesh has %d injected namespaces, want two", len(both))
	}
	refs := starlark.Tuple{starlark.NewList(both)}
	away := labels(t, "istio-injection", nil, "istio.io/rev", "nobody")
	shown := b.Must("kube.diff_label", refs, away).(*manifest.Change)
	if len(shown.Effects) != len(both) || len(b.Sent) != 0 {
		t.Errorf("shown %v, sent %d", shown.Effects, len(b.Sent))
	}
	if len(shown.Outdated) != 0 {
		t.Errorf("outdated %v: nobody injects there then, so a restart would take sidecars away", shown.Outdated)
	}
	if got := b.Must("kube.label", refs, away); got != true {
		t.Errorf("label: got %v", got)
	}
	var sent []string
	for _, e := range b.Sent {
		sent = append(sent, string(e.Verb)+" "+e.Ref.String())
	}
	if !slices.Equal(sent, shown.Effects) {
		t.Errorf("sent %v, shown %v", sent, shown.Effects)
	}
	if got := b.Must("kube.diff_label", refs, away).(*manifest.Change); got.Truth() != starlark.False || !strings.Contains(got.Text, "is already so") {
		t.Errorf("shown again: %s", got.Text)
	}
}

func TestLabelsAreText(t *testing.T) {
	b := newBench(t)
	d := starlark.NewDict(1)
	if err := d.SetKey(starlark.String("n"), starlark.MakeInt(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Call("kube.diff_label", starlark.Tuple{starlark.String("namespace/default")}, kw("set", d)); err == nil || !strings.Contains(err.Error(), `label "n": got 1, want a string`) {
		t.Errorf("got %v", err)
	}
}
