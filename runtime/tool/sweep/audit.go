package sweep

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// overdrawn is the reason of the auditor's events.
const overdrawn = "BudgetOverdrawn"

// Auditor is a controller for the clusters of a sweep: it records an event
// whenever, at any instant, fewer pods are healthy than a PodDisruptionBudget
// demands. Whatever took them away, a rollout too: a person who writes a budget
// means both. It has to come after the controller that counts.
//
// It keeps nothing in itself, so that a clone of the cluster goes on counting.
func Auditor() sim.Controller { return auditor{} }

type auditor struct{}

// Name implements sim.Controller.
func (auditor) Name() string { return "sweep-auditor" }

// Watches implements sim.Controller.
func (auditor) Watches() []schema.GroupResource {
	return []schema.GroupResource{{Group: "policy", Resource: "poddisruptionbudgets"}}
}

// Sync implements sim.Controller.
func (auditor) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	b := w.Get(gr, namespace, name)
	if b == nil {
		return 0
	}
	healthy, _, _ := unstructured.NestedInt64(b.Object, "status", "currentHealthy")
	desired, _, _ := unstructured.NestedInt64(b.Object, "status", "desiredHealthy")
	if healthy < desired {
		w.Event(b, "Warning", overdrawn, fmt.Sprintf("%d pods are healthy at %s, and %d should be", healthy, w.Now().Format(time.RFC3339), desired))
	}
	return 0
}

// audited are the auditor's events.
func audited(c *sim.Cluster) map[string]string {
	out := map[string]string{}
	for _, o := range c.Stored() {
		if o.GetKind() != "Event" || o.Object["reason"] != overdrawn {
			continue
		}
		about, _, _ := unstructured.NestedString(o.Object, "involvedObject", "name")
		message, _, _ := unstructured.NestedString(o.Object, "message")
		out[o.GetNamespace()+"/"+o.GetName()] = fmt.Sprintf("budget %s/%s: %s", o.GetNamespace(), about, message)
	}
	return out
}

// budgets demands that no budget was overdrawn since before, where the
// undisturbed run overdraws none.
func (ref *reference) budgets(w *world) {
	if ref.overdraws {
		return
	}
	for id, text := range audited(w.sim) {
		if ref.audited[id] == "" {
			w.breaks("%s", text)
		}
	}
}
