package sim

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Foreseer is a Controller that can say what pods a workload is going to have.
type Foreseer interface {
	// Foresee gives the pods that a workload of this kind would be given if it were
	// stored as it is here, before admission: as far as they differ in more than
	// their name. Nothing is made.
	Foresee(workload *unstructured.Unstructured) []*unstructured.Unstructured
}

// Preparer is an Injector that can find out in the background what it will answer.
type Preparer interface {
	// Prepare is told of a request that is likely to come. It does not wait.
	Prepare(in InjectionRequest)
}

// foresee has the injector work ahead on the pods of a workload whose change was
// tried out: while a server answers dry-runs there is nothing else to do. The
// injection is the same whenever it is found out. The lock is held.
func (c *Cluster) foresee(gr schema.GroupResource, workload *unstructured.Unstructured) {
	if _, can := c.opts.Injector.(Preparer); !can {
		return
	}
	for _, ctl := range c.opts.Controllers {
		f, ok := ctl.(Foreseer)
		if !ok || !watches(ctl, gr) {
			continue
		}
		o := writeOptions{manager: managerOf(ctl), controller: true, dryRun: true, foresee: true}
		for _, pod := range f.Foresee(workload) {
			_, _ = c.create(grPods, pod.GetNamespace(), pod, o) // what refuses it will do so again
		}
	}
}

func watches(ctl Controller, gr schema.GroupResource) bool {
	w := ctl.Watches()
	return len(w) > 0 && w[0] == gr // what a controller is about comes first
}
