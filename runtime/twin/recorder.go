package twin

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/sim"
)

// recorder watches the twin's workloads as a controller does, and changes
// nothing.
type recorder struct {
	work map[key]*Course
	pdbs map[key]*BudgetCourse
}

type key struct {
	gr              schema.GroupResource
	namespace, name string
}

// Course is how a workload fared while the twin lived.
type Course struct {
	Kind      string    `json:"kind"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Began     time.Time `json:"began"` // first change of its state
	Ended     time.Time `json:"ended"` // last change
	Wanted    int64     `json:"wanted"`
	// Least is the fewest pods that were ready at a time, and Short how long
	// there were fewer than wanted.
	Least int64         `json:"least"`
	Short time.Duration `json:"shortNanos"`
	// Ready is whether all wanted pods were ready in the end.
	Ready bool `json:"ready"`

	lastReady int64
	lastAt    time.Time
}

// BudgetCourse is how a PodDisruptionBudget fared.
type BudgetCourse struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Least is the fewest disruptions that it allowed at a time, and Exhausted
	// how long it allowed none.
	Least     int64         `json:"least"`
	Exhausted time.Duration `json:"exhaustedNanos"`

	last   int64
	lastAt time.Time
}

var (
	grBudgets      = schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}
	workloadStatus = map[schema.GroupResource][2][]string{ // ready, wanted
		{Group: "apps", Resource: "deployments"}:  {{"status", "readyReplicas"}, {"spec", "replicas"}},
		{Group: "apps", Resource: "statefulsets"}: {{"status", "readyReplicas"}, {"spec", "replicas"}},
		{Group: "apps", Resource: "daemonsets"}:   {{"status", "numberReady"}, {"status", "desiredNumberScheduled"}},
	}
)

var _ sim.Controller = (*recorder)(nil)

// Name implements sim.Controller.
func (*recorder) Name() string { return "twin-recorder" }

// Watches implements sim.Controller.
func (*recorder) Watches() []schema.GroupResource {
	out := []schema.GroupResource{grBudgets}
	for gr := range workloadStatus {
		out = append(out, gr)
	}
	slices.SortFunc(out, func(a, b schema.GroupResource) int { return cmp.Compare(a.Resource, b.Resource) })
	return out
}

// Sync implements sim.Controller.
func (r *recorder) Sync(w sim.World, gr schema.GroupResource, namespace, name string) time.Duration {
	o := w.Get(gr, namespace, name)
	if o == nil {
		return 0
	}
	if gr == grBudgets {
		r.budget(o, w.Now())
		return 0
	}
	at, ok := workloadStatus[gr]
	if !ok {
		return 0
	}
	r.workload(gr, o, number(o, at[0]), number(o, at[1]), w.Now())
	return 0
}

func number(o *unstructured.Unstructured, path []string) int64 {
	n, _, _ := unstructured.NestedInt64(o.Object, path...)
	return n
}

func (r *recorder) workload(gr schema.GroupResource, o *unstructured.Unstructured, ready, wanted int64, now time.Time) {
	if r.work == nil {
		r.work = map[key]*Course{}
	}
	k := key{gr, o.GetNamespace(), o.GetName()}
	c := r.work[k]
	if c == nil {
		c = &Course{Kind: o.GetKind(), Namespace: k.namespace, Name: k.name, Began: now, Least: ready, lastReady: ready, lastAt: now, Wanted: wanted}
		r.work[k] = c
	}
	if c.lastReady < c.Wanted {
		c.Short += now.Sub(c.lastAt)
	}
	c.Least, c.lastReady, c.lastAt, c.Wanted, c.Ended = min(c.Least, ready), ready, now, wanted, now
	c.Ready = ready >= wanted
}

func (r *recorder) budget(o *unstructured.Unstructured, now time.Time) {
	if r.pdbs == nil {
		r.pdbs = map[key]*BudgetCourse{}
	}
	k := key{grBudgets, o.GetNamespace(), o.GetName()}
	allowed := number(o, []string{"status", "disruptionsAllowed"})
	c := r.pdbs[k]
	if c == nil {
		c = &BudgetCourse{Namespace: k.namespace, Name: k.name, Least: allowed, last: allowed, lastAt: now}
		r.pdbs[k] = c
	}
	if c.last == 0 {
		c.Exhausted += now.Sub(c.lastAt)
	}
	c.Least, c.last, c.lastAt = min(c.Least, allowed), allowed, now
}

func (r *recorder) courses() []Course {
	var out []Course
	for _, c := range r.work {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Course) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (r *recorder) budgets() []BudgetCourse {
	var out []BudgetCourse
	for _, c := range r.pdbs {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b BudgetCourse) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}
