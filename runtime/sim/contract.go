package sim

import (
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// World is what a controller sees of the simulated cluster. All calls happen
// on the cluster's own goroutine under its lock, at one instant of virtual
// time, so a controller never meets a conflict and needs no locking.
type World interface {
	// Now is the virtual time.
	Now() time.Time
	// Get returns the stored object, or nil. It is shared: DeepCopy before changing it.
	Get(gr schema.GroupResource, namespace, name string) *unstructured.Unstructured
	// List returns the stored objects of a resource sorted by namespace and
	// name; namespace "" means all. They are shared.
	List(gr schema.GroupResource, namespace string) []*unstructured.Unstructured
	// Owned returns the objects of a resource whose controller owner is uid.
	Owned(gr schema.GroupResource, namespace, ownerUID string) []*unstructured.Unstructured
	// Create stores a new object through defaulting and admission (injection),
	// as the named controller. It returns the stored object.
	Create(obj *unstructured.Unstructured) (*unstructured.Unstructured, error)
	// Update replaces everything but the status of a stored object.
	Update(obj *unstructured.Unstructured) error
	// UpdateStatus replaces the status of a stored object.
	UpdateStatus(obj *unstructured.Unstructured) error
	// Apply applies an object server-side by force, as the controller's field
	// manager.
	Apply(obj *unstructured.Unstructured) error
	// Delete deletes with background propagation. A pod on a node gets its
	// grace period, and stays until the kubelet ends it.
	Delete(gr schema.GroupResource, namespace, name string) error
	// End deletes without a grace period, as the kubelet does with a pod whose
	// containers have stopped.
	End(gr schema.GroupResource, namespace, name string) error
	// Name returns base followed by a deterministic suffix (five characters,
	// as the API server's generateName appends).
	Name(base string) string
	// Event records a core/v1 Event about obj.
	Event(obj *unstructured.Unstructured, kind, reason, message string)
}

// Controller is one reconciliation loop of the simulated cluster. It is
// level-triggered: all that it needs to go on, timers included, it derives
// from the stored objects, so that a cluster reloaded from disk goes on where
// it was.
//
// A controller with a method Manager() string names the field manager of its
// writes by it; that of the others is kube-controller-manager.
type Controller interface {
	// Name is the controller's name, as faults and events call it.
	Name() string
	// Watches lists the resources whose changes call Sync. When an object
	// changes, Sync is called for it and for its controller owners.
	Watches() []schema.GroupResource
	// Sync reconciles one object (possibly deleted since: Get it). It returns
	// how long from now it wants to be called again for the same object;
	// zero or less means not until something changes.
	Sync(w World, gr schema.GroupResource, namespace, name string) time.Duration
}

// Injector decides about and performs sidecar injection, as the mutating
// webhook of the given configuration would do. builtins/istioctl supplies the
// one that runs Istio's own template; tests may use a simple one.
type Injector interface {
	// Inject returns the pod as the webhook behind cfg would return it. The
	// ConfigMaps are those of the control plane behind the webhook
	// (istio-sidecar-injector-REV, istio-REV), looked up by the caller.
	Inject(in InjectionRequest) (*unstructured.Unstructured, error)
}

// InjectionRequest is what istiod's injection webhook would know.
type InjectionRequest struct {
	Pod       *unstructured.Unstructured // shared: not to be changed
	Namespace *unstructured.Unstructured
	Revision  string // of the control plane that the webhook's Service or URL names
	// InjectorConfig and MeshConfig are the data of the revision's
	// istio-sidecar-injector and istio ConfigMaps.
	InjectorConfig map[string]string
	MeshConfig     map[string]string
	// IstiodImage is the image of the revision's discovery container.
	IstiodImage string
}
