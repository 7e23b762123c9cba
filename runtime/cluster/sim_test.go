package cluster_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

func simulated(t *testing.T) *cluster.Client {
	t.Helper()
	s, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func configMap(value string) *cluster.Object {
	return &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "web", "namespace": "default"},
		"data":     map[string]any{"k": value},
	}}
}

// TestAgainstTheSimulatedCluster walks an object through its life.
func TestAgainstTheSimulatedCluster(t *testing.T) {
	c, ctx := simulated(t), t.Context()
	ref := cluster.RefOf(configMap(""))
	if _, err := c.Get(ctx, ref); !errors.Is(err, cluster.ErrNotFound) {
		t.Fatalf("absent: %v", err)
	}
	if _, err := c.DryRunApply(ctx, configMap("1"), cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, ref); !errors.Is(err, cluster.ErrNotFound) {
		t.Fatalf("a dry-run was stored: %v", err)
	}
	made, err := c.Apply(ctx, configMap("1"), cluster.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ce *cluster.ConflictError
	if _, err := c.Apply(ctx, configMap("2"), cluster.ApplyOptions{Manager: "helm"}); !errors.As(err, &ce) || ce.Fields[0].Manager != "rutter" || ce.Fields[0].Field != ".data.k" {
		t.Errorf("conflict: %v", err)
	}
	if _, err := c.Patch(ctx, ref, types.MergePatchType, []byte(`{"data":{"k":"3"}}`), cluster.WriteOptions{UID: made.GetUID()}); err != nil {
		t.Error(err)
	}
	for _, pt := range []types.PatchType{types.MergePatchType, types.JSONPatchType} {
		body := []byte(`{}`)
		if pt == types.JSONPatchType {
			body = []byte(`[]`)
		}
		if _, err := c.Patch(ctx, ref, pt, body, cluster.WriteOptions{UID: "other"}); !errors.Is(err, cluster.ErrConflict) {
			t.Errorf("%s with another UID: %v", pt, err)
		}
	}
	if _, err := c.Replace(ctx, configMap("4"), cluster.WriteOptions{ResourceVersion: made.GetResourceVersion()}); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("stale replace: %v", err)
	}
	if err := c.Delete(ctx, ref, cluster.WriteOptions{UID: "other"}); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("delete with another UID: %v", err)
	}
	if err := c.Delete(ctx, ref, cluster.WriteOptions{UID: made.GetUID()}); err != nil {
		t.Error(err)
	}
	if err := c.Delete(ctx, ref, cluster.WriteOptions{}); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("delete again: %v", err)
	}
}

func TestListAgainstTheSimulatedCluster(t *testing.T) {
	c, ctx := simulated(t), t.Context()
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		o := configMap(n)
		o.SetName(n)
		if _, err := c.Create(ctx, o, cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.Resolve(ctx, "cm")
	if err != nil {
		t.Fatal(err)
	}
	for _, metadataOnly := range []bool{false, true} {
		got := ""
		o := cluster.ListOptions{Namespace: "default", PageSize: 2, MetadataOnly: metadataOnly}
		err := c.List(ctx, res, o, func(o *cluster.Object) error {
			if o.GetKind() != "ConfigMap" || (o.Object["data"] == nil) != metadataOnly {
				t.Errorf("metadata only %v: %v", metadataOnly, o.Object)
			}
			if len(o.GetName()) == 1 {
				got += o.GetName()
			}
			return nil
		})
		if err != nil || got != "abcde" {
			t.Errorf("metadata only %v: %q, %v", metadataOnly, got, err)
		}
	}
}

// TestWaitOnAVirtualClock: an hour passes in no time, and is told.
func TestWaitOnAVirtualClock(t *testing.T) {
	c := simulated(t)
	ref := cluster.RefOf(configMap(""))
	polls := 0
	err := c.WaitFor(t.Context(), []cluster.Ref{ref}, time.Hour, func(now []*cluster.Object) (bool, error) {
		if polls++; polls == 3 {
			if _, err := c.Apply(t.Context(), configMap("1"), cluster.ApplyOptions{}); err != nil {
				return false, err
			}
		}
		return now[0] != nil, nil
	})
	if err != nil || polls != 4 {
		t.Errorf("%v after %d polls", err, polls)
	}
	err = c.WaitFor(t.Context(), []cluster.Ref{ref}, time.Hour, func([]*cluster.Object) (bool, error) { return false, nil })
	if !errors.Is(err, cluster.ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestEvictionAgainstTheSimulatedCluster(t *testing.T) {
	c, ctx := simulated(t), t.Context()
	pod := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "web", "namespace": "default", "labels": map[string]any{"app": "web"}},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "app", "image": "app"}}},
	}}
	if _, err := c.Create(ctx, pod, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	ref := cluster.RefOf(pod)
	if err := c.DryRunEvict(ctx, ref, cluster.WriteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(ctx, ref); err != nil {
		t.Errorf("a dry-run eviction took the pod: %v", err)
	}
	if err := c.Evict(ctx, ref, cluster.WriteOptions{}); err != nil {
		t.Error(err)
	}
	allowed, err := c.CanI(ctx, cluster.Access{Verb: "get", Resource: "pods", Namespace: "default"})
	if err != nil || len(allowed) != 1 || !allowed[0] {
		t.Errorf("can I: %v, %v", allowed, err)
	}
}

// withPods is a simulated cluster on which a Deployment of two pods is ready,
// under a budget that allows none of them to go.
func withPods(t *testing.T) (*cluster.Client, []*cluster.Object) {
	t.Helper()
	s, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deployment := &cluster.Object{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "web", "namespace": "default"},
		"spec": map[string]any{
			"replicas": int64(2),
			"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": "web"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "web", "image": "registry.example/web:1"}}},
			},
		},
	}}
	budget := &cluster.Object{Object: map[string]any{
		"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
		"metadata": map[string]any{"name": "web", "namespace": "default"},
		"spec":     map[string]any{"minAvailable": int64(2), "selector": map[string]any{"matchLabels": map[string]any{"app": "web"}}},
	}}
	node := &cluster.Object{Object: map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "n1"},
		"status": map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}},
	}}
	for _, o := range []*cluster.Object{node, deployment, budget} {
		if _, err := c.Create(t.Context(), o, cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	err = c.WaitFor(t.Context(), []cluster.Ref{cluster.RefOf(deployment)}, time.Minute, func(now []*cluster.Object) (bool, error) {
		ready, _, _ := cluster.Ready(now[0])
		return ready, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Resolve(t.Context(), "pods")
	if err != nil {
		t.Fatal(err)
	}
	var pods []*cluster.Object
	err = c.List(t.Context(), res, cluster.ListOptions{Namespace: "default", Labels: "app=web"}, func(o *cluster.Object) error {
		pods = append(pods, o)
		return nil
	})
	if err != nil || len(pods) != 2 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	return c, pods
}

func TestEvictionThatABudgetRefuses(t *testing.T) {
	c, pods := withPods(t)
	ref := cluster.RefOf(pods[0])
	for name, evict := range map[string]func() error{
		"dry-run": func() error { return c.DryRunEvict(t.Context(), ref, cluster.WriteOptions{}) },
		"evict":   func() error { return c.Evict(t.Context(), ref, cluster.WriteOptions{UID: pods[0].GetUID()}) },
	} {
		if err := evict(); !errors.Is(err, cluster.ErrDisruption) || !strings.Contains(err.Error(), pods[0].GetName()) {
			t.Errorf("%s: got %v, want ErrDisruption", name, err)
		}
	}
	if err := c.Delete(t.Context(), cluster.Ref{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget", Namespace: "default", Name: "web"}, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Evict(t.Context(), ref, cluster.WriteOptions{UID: "other"}); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("another UID: got %v, want ErrConflict", err)
	}
	if err := c.Evict(t.Context(), ref, cluster.WriteOptions{UID: pods[0].GetUID()}); err != nil {
		t.Errorf("without budget: %v", err)
	}
}

func TestLogsAgainstTheSimulatedCluster(t *testing.T) {
	c, pods := withPods(t)
	name := pods[0].GetName()
	text, err := c.Logs(t.Context(), "default", name, "", 0, false)
	if err != nil || text == "" {
		t.Errorf("got %q, %v", text, err)
	}
	for _, tc := range []struct {
		namespace, pod, container string
		want                      error
		says                      string
	}{
		{"default", "none", "", cluster.ErrNotFound, `"none" not found`},
		{"default", name, "nope", cluster.ErrInvalid, "nope"},
		{"default", "../../secrets", "", cluster.ErrInvalid, "is no name"},
		{"..", name, "", cluster.ErrInvalid, "is no name"},
	} {
		_, err := c.Logs(t.Context(), tc.namespace, tc.pod, tc.container, 10, false)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%+v: got %v", tc, err)
		}
	}
}

// TestNamesThatWouldLeadElsewhere: a name is one segment of a path, never more.
func TestNamesThatWouldLeadElsewhere(t *testing.T) {
	c := simulated(t)
	for _, ref := range []cluster.Ref{
		{Version: "v1", Kind: "ConfigMap", Namespace: "default", Name: "../secrets"},
		{Version: "v1", Kind: "ConfigMap", Namespace: "../x", Name: "a"},
	} {
		if _, err := c.Get(t.Context(), ref); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%v: got %v", ref, err)
		}
	}
}

func TestMoveFields(t *testing.T) {
	c, ctx := simulated(t), t.Context()
	for _, m := range []string{"first", "second"} {
		o := configMap("")
		o.Object["data"] = map[string]any{m: "1", "kept-" + m: "1"}
		if _, err := c.Apply(ctx, o, cluster.ApplyOptions{Manager: m}); err != nil {
			t.Fatal(err)
		}
	}
	ref := cluster.RefOf(configMap(""))
	stays := func(p fieldpath.Path) bool { return strings.HasPrefix(p.String(), ".data.kept-") }
	for want := 1; want >= 0; want-- {
		live, err := c.Get(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		move, err := cluster.MoveFields(live, []string{"first", "second", "third"}, stays)
		if err != nil || (move != nil) != (want == 1) {
			t.Fatalf("got %v, %v; want %d moves", move, err, want)
		}
		if move == nil {
			break
		}
		if !slices.Equal(move.Managers, []string{"first", "second"}) || move.Stays.Size() != 2 {
			t.Errorf("managers %v, stays %v", move.Managers, move.Stays)
		}
		patch, err := json.Marshal(move.Patch)
		if err != nil {
			t.Fatal(err)
		}
		after, err := c.Patch(ctx, ref, types.JSONPatchType, patch, cluster.WriteOptions{ResourceVersion: live.GetResourceVersion()})
		if err != nil {
			t.Fatal(err)
		}
		ours, err := cluster.Owned(after, func(m metav1.ManagedFieldsEntry) bool {
			return m.Manager == cluster.FieldManager && m.Operation == metav1.ManagedFieldsOperationApply
		})
		if err != nil || !ours.Has(fieldpath.MakePathOrDie("data", "first")) || !ours.Has(fieldpath.MakePathOrDie("data", "second")) || ours.Has(fieldpath.MakePathOrDie("data", "kept-first")) {
			t.Errorf("rutter owns %v, %v", ours, err)
		}
		if _, err := c.Patch(ctx, ref, types.JSONPatchType, patch, cluster.WriteOptions{ResourceVersion: "1"}); !errors.Is(err, cluster.ErrConflict) {
			t.Errorf("stale: got %v, want a conflict", err)
		}
	}
	if live, err := c.Apply(ctx, configMap("new"), cluster.ApplyOptions{}); err != nil || len(live.Object["data"].(map[string]any)) != 3 {
		t.Errorf("want k and what is kept: %v, %v", live, err)
	}
}

// TestApplyAfterItsOwnPatch: what rutter patched is rutter's, though the server
// keeps patches and applies of one manager apart.
func TestApplyAfterItsOwnPatch(t *testing.T) {
	c, ctx := simulated(t), t.Context()
	ref := cluster.RefOf(configMap(""))
	if _, err := c.Apply(ctx, configMap("1"), cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := func(manager string) {
		t.Helper()
		if _, err := c.Patch(ctx, ref, types.MergePatchType, []byte(`{"data":{"k":"`+manager+`"}}`), cluster.WriteOptions{Manager: manager}); err != nil {
			t.Fatal(err)
		}
	}
	patch(cluster.FieldManager)
	for _, dry := range []bool{true, false} {
		if got, err := c.Apply(ctx, configMap("2"), cluster.ApplyOptions{DryRun: dry}); err != nil || got.Object["data"].(map[string]any)["k"] != "2" {
			t.Errorf("dry-run %v: %v, %v", dry, got, err)
		}
	}
	patch("somebody")
	if _, err := c.Apply(ctx, configMap("3"), cluster.ApplyOptions{}); !errors.Is(err, cluster.ErrConflict) {
		t.Errorf("over somebody else's: %v", err)
	}
}

// An API server that is restarted under a run is waited for by what changes nothing;
// one that stays away is reported as what it is.
func TestAServerThatComesBack(t *testing.T) {
	for _, tc := range []struct {
		name string
		down time.Duration
		want error
	}{
		{"soon", 5 * time.Second, nil},
		{"after twenty seconds", 20 * time.Second, nil},
		{"not for a minute", time.Minute, cluster.ErrUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := sim.New(sim.Options{Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ref := cluster.Ref{Version: "v1", Kind: "Namespace", Name: "default"}
			if _, err := c.Get(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			s.Restart(tc.down)
			if _, err := c.Get(t.Context(), ref); !errors.Is(err, tc.want) {
				t.Errorf("read: got %v, want %v", err, tc.want)
			}
			s.Advance(tc.down)
			s.Restart(tc.down)
			if _, err := c.DryRunApply(t.Context(), configMap("1"), cluster.ApplyOptions{}); !errors.Is(err, tc.want) {
				t.Errorf("dry-run: got %v, want %v", err, tc.want)
			}
			s.Advance(tc.down)
			s.Restart(time.Second)
			if _, err := c.Apply(t.Context(), configMap("1"), cluster.ApplyOptions{}); !errors.Is(err, cluster.ErrUnreachable) {
				t.Errorf("a change was sent again: %v", err)
			}
		})
	}
}
