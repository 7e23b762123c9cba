package effect

import (
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

func TestApplyDigestIgnoresWhatTheServerAndTheRunWrite(t *testing.T) {
	desired := func() *cluster.Object {
		return &cluster.Object{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": "a", "namespace": "x"},
			"data":     map[string]any{"k": "<v>"},
		}}
	}
	a, err := ApplyOf(desired(), nil)
	if err != nil {
		t.Fatal(err)
	}
	o := desired()
	o.SetUID("u")
	o.SetResourceVersion("7")
	o.SetAnnotations(map[string]string{cluster.AnnotationRun: "r", cluster.AnnotationEffect: "e"})
	o.Object["status"] = map[string]any{"x": "y"}
	b, err := ApplyOf(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest() != b.Digest() {
		t.Errorf("got %s and %s", a.Body, b.Body)
	}
	if !strings.Contains(string(a.Body), "<v>") {
		t.Errorf("the body is escaped: %s", a.Body)
	}
	// Taking fields over is part of what is reviewed (DESIGN §8, ruling 2).
	if c, err := ApplyOf(desired(), []string{"istio-operator"}); err != nil || c.Digest() == a.Digest() {
		t.Errorf("adopting has the digest of not adopting (%v)", err)
	}
}

func TestFoundGivesTheWayBack(t *testing.T) {
	e := &Effect{Verb: Apply}
	e.Found(nil)
	if !e.Absent || e.Undo.Kind != UndoDelete {
		t.Errorf("absent: %+v", e)
	}
	live := &cluster.Object{Object: map[string]any{"metadata": map[string]any{"uid": "u"}}}
	e.Found(live)
	if e.Absent || e.UID != "u" || e.Undo.Kind != UndoRestore {
		t.Errorf("live: %+v", e)
	}
	if d := DeleteOf(live, ""); d.UID != "u" || d.Undo.Kind != UndoRecreate || d.Before != live {
		t.Errorf("delete: %+v", d)
	}
}

func TestRestoresKeepKubectlsRecord(t *testing.T) {
	const key = "kubectl.kubernetes.io/last-applied-configuration"
	o := &cluster.Object{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}}}
	o.SetAnnotations(map[string]string{key: "{}"})
	c, err := CreateOf(o)
	if err != nil || !strings.Contains(string(c.Body), key) {
		t.Errorf("create: got %s, %v", c.Body, err)
	}
	a, err := ApplyOf(o, nil)
	if err != nil || strings.Contains(string(a.Body), key) {
		t.Errorf("apply: got %s, %v", a.Body, err)
	}
}
