package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func statefulSet(extra string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: shop}, spec: {replicas: 3, serviceName: db,
  selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: app, image: "db:1"}]}}%s}}`, extra)
}

func daemonSet(strategy string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: agent, namespace: shop}, spec: {updateStrategy: %s,
  selector: {matchLabels: {app: agent}}, template: {metadata: {labels: {app: agent}}, spec: {containers: [{name: app, image: "agent:1"}]}}}}`, strategy)
}

func imageOf(p *unstructured.Unstructured) string {
	return text(items(p.Object, "spec", "containers")[0], "image")
}

// imagesOf are the images of the shop's pods in the order of their names.
func imagesOf(w *smallWorld) string {
	var out []string
	for _, p := range w.List(grPods, "shop") {
		out = append(out, imageOf(p))
	}
	return strings.Join(out, " ")
}

func TestStatefulSetGoesInOrder(t *testing.T) {
	w := newWorld(t, statefulSet(", updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0}}"))
	w.advance(time.Second)
	if n := len(w.List(grPods, "shop")); n != 1 {
		t.Fatalf("%d pods before the first is ready", n)
	}
	w.advance(20 * time.Second)
	if got := w.status("StatefulSet", "db", "readyReplicas"); got != 3 {
		t.Fatalf("ready %d", got)
	}
	var order []string
	w.watch = func() {
		if s := imagesOf(w); len(order) == 0 || order[len(order)-1] != s {
			order = append(order, s)
		}
	}
	w.change("StatefulSet", "shop", "db", setImage("db:2"))
	w.advance(time.Minute)
	want := []string{"db:1 db:1", "db:1 db:1 db:2", "db:1 db:2", "db:1 db:2 db:2", "db:2 db:2", "db:2 db:2 db:2"}
	got := strings.Join(order, "; ")
	if w := strings.Join(want, "; "); got != w {
		t.Errorf("order of the update:\n got %s\nwant %s", got, w)
	}
	s := w.Get(grStatefulSets, "shop", "db")
	if text(s.Object, "status", "currentRevision") != text(s.Object, "status", "updateRevision") {
		t.Errorf("status %v", s.Object["status"])
	}
	if n := len(w.List(grRevisions, "shop")); n != 2 {
		t.Errorf("%d revisions", n)
	}
}

func TestStatefulSetPartitionAndOnDelete(t *testing.T) {
	w := newWorld(t, statefulSet(", updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}"))
	w.advance(20 * time.Second)
	w.change("StatefulSet", "shop", "db", setImage("db:2"))
	w.advance(time.Minute)
	if got := imagesOf(w); got != "db:1 db:1 db:2" {
		t.Errorf("partition 2: %s", got)
	}
	if err := w.Delete(grPods, "shop", "db-0"); err != nil {
		t.Fatal(err)
	}
	w.advance(20 * time.Second)
	if got := imagesOf(w); got != "db:1 db:1 db:2" {
		t.Errorf("a pod below the partition came back with the new revision: %s", got)
	}

	w = newWorld(t, statefulSet(", updateStrategy: {type: OnDelete}"))
	w.advance(20 * time.Second)
	w.change("StatefulSet", "shop", "db", setImage("db:2"))
	w.advance(time.Minute)
	if got := imagesOf(w); got != "db:1 db:1 db:1" {
		t.Errorf("OnDelete: %s", got)
	}
	if err := w.Delete(grPods, "shop", "db-1"); err != nil {
		t.Fatal(err)
	}
	w.advance(20 * time.Second)
	if got := imagesOf(w); got != "db:1 db:2 db:1" {
		t.Errorf("OnDelete after deleting db-1: %s", got)
	}
}

func TestStatefulSetStopsAtABadPodAndScales(t *testing.T) {
	w := newWorld(t, statefulSet(`, podManagementPolicy: Parallel, volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce]}}]`))
	w.advance(10 * time.Second)
	if got := w.status("StatefulSet", "db", "readyReplicas"); got != 3 {
		t.Fatalf("parallel: ready %d", got)
	}
	if n := len(w.List(grClaims, "shop")); n != 3 {
		t.Errorf("%d claims", n)
	}
	w.change("StatefulSet", "shop", "db", setImage("db:2-bad"))
	w.advance(time.Minute)
	if got := imagesOf(w); got != "db:1 db:1 db:2-bad" {
		t.Errorf("a bad image went on: %s", got)
	}
	w.change("StatefulSet", "shop", "db", func(o map[string]any) { o["spec"].(map[string]any)["replicas"] = int64(1) })
	w.advance(time.Minute)
	if n := len(w.List(grPods, "shop")); n != 1 {
		t.Errorf("%d pods after scaling down", n)
	}
}

func TestDaemonSetRollsNodeByNode(t *testing.T) {
	for _, c := range []struct {
		strategy     string
		most, fewest int
	}{
		{"{type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}", 3, 2},
		{"{type: RollingUpdate, rollingUpdate: {maxUnavailable: '50%'}}", 3, 1},
		{"{type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", 4, 3},
	} {
		w := newWorld(t, daemonSet(c.strategy))
		w.advance(10 * time.Second)
		if got := w.status("DaemonSet", "agent", "numberAvailable"); got != 3 {
			t.Fatalf("available %d", got)
		}
		most, fewest := 0, 99
		w.watch = func() {
			up := 0
			pods := w.List(grPods, "shop")
			for _, p := range pods {
				if ready(p) {
					up++
				}
			}
			most, fewest = max(most, len(pods)), min(fewest, up)
		}
		w.change("DaemonSet", "shop", "agent", setImage("agent:2"))
		w.advance(time.Minute)
		if most != c.most || fewest != c.fewest {
			t.Errorf("%s: most %d, fewest ready %d; want %d, %d", c.strategy, most, fewest, c.most, c.fewest)
		}
		if got := w.status("DaemonSet", "agent", "updatedNumberScheduled"); got != 3 {
			t.Errorf("%s: updated %d", c.strategy, got)
		}
	}
}

func TestDaemonSetFollowsNodes(t *testing.T) {
	w := newWorld(t, daemonSet("{type: OnDelete}"))
	w.advance(10 * time.Second)
	w.add("{apiVersion: v1, kind: Node, metadata: {name: node-4}}")
	w.advance(10 * time.Second)
	if got := w.status("DaemonSet", "agent", "numberReady"); got != 4 {
		t.Errorf("ready %d after a fourth node", got)
	}
	w.change("DaemonSet", "shop", "agent", setImage("agent:2"))
	w.advance(time.Minute)
	if got := w.status("DaemonSet", "agent", "updatedNumberScheduled"); got != 0 {
		t.Errorf("OnDelete updated %d", got)
	}
	if err := w.Delete(grNodes, "", "node-4"); err != nil {
		t.Fatal(err)
	}
	w.advance(10 * time.Second)
	if n := len(w.List(grPods, "shop")); n != 3 {
		t.Errorf("%d pods on three nodes", n)
	}
}
