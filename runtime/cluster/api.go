// Package cluster is the one door to Kubernetes. client-go lives here and
// nowhere above; everything else speaks in Refs, unstructured objects and the
// two interfaces Reader and Writer. Only the engine holds a Writer.
//
// Mutations are never resent by this package or by client-go beneath it
// (FACTS §2): what happened to a request that was sent and not answered is for
// the engine to find out.
package cluster

import (
	"context"
	"errors"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// FieldManager is the name under which rutter owns fields.
const FieldManager = "rutter"

// Annotations that rutter writes on what it changes. They never enter a
// comparison.
const (
	AnnotationRun    = "rutter.dev/run"    // run id
	AnnotationEffect = "rutter.dev/effect" // key of the effect that wrote last
)

// Object is a Kubernetes object as decoded JSON.
type Object = unstructured.Unstructured

// Ref names one object, or with an empty Name a resource (in a namespace).
type Ref struct {
	Group     string `json:"group,omitempty"`
	Version   string `json:"version"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// RefOf is the Ref of an object.
func RefOf(o *Object) Ref {
	gvk := o.GroupVersionKind()
	return Ref{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// ControllerOf is the object that controls o; false where none does.
func ControllerOf(o *Object) (Ref, bool) {
	up := metav1.GetControllerOfNoCopy(o)
	if up == nil {
		return Ref{}, false
	}
	gv, err := schema.ParseGroupVersion(up.APIVersion)
	if err != nil {
		gv = schema.GroupVersion{Version: up.APIVersion}
	}
	return Ref{Group: gv.Group, Version: gv.Version, Kind: up.Kind, Namespace: o.GetNamespace(), Name: up.Name}, true
}

// GVK is the kind that r names.
func (r Ref) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

// ID identifies the object regardless of the API version through which it is
// read: "deployment.apps/shop/web", "namespace//shop".
func (r Ref) ID() string {
	return strings.ToLower(schema.GroupKind{Group: r.Group, Kind: r.Kind}.String()) + "/" + r.Namespace + "/" + r.Name
}

// String is how a person reads it: "deployment.apps/web in shop".
func (r Ref) String() string {
	s := strings.ToLower(schema.GroupKind{Group: r.Group, Kind: r.Kind}.String())
	if r.Name != "" {
		s += "/" + r.Name
	}
	if r.Namespace != "" {
		s += " in " + r.Namespace
	}
	return s
}

// Resource is what discovery knows of a kind.
type Resource struct {
	GVK        schema.GroupVersionKind
	GVR        schema.GroupVersionResource
	Namespaced bool
	Verbs      []string
}

// ListOptions narrow a list. The zero value lists everything.
type ListOptions struct {
	Namespace    string
	Labels       string // label selector
	Fields       string // field selector
	MetadataOnly bool   // fetch PartialObjectMetadata: a tenth of the memory
	Lean         bool   // leave managedFields out: a third of a pod, and half of the work to decode it; what is given is only read
	PageSize     int64  // 0 means 500
	MaxItems     int    // 0 means all
}

// ApplyOptions are those of a server-side apply.
type ApplyOptions struct {
	Manager string // field manager; "" means FieldManager
	Force   bool   // take fields over from other managers
	DryRun  bool
}

// WriteOptions hold for create, replace, patch, delete and evict.
type WriteOptions struct {
	DryRun          bool
	Manager         string // "" means FieldManager
	UID             types.UID
	ResourceVersion string // precondition, where set
	Propagation     string // delete: "Background" (default), "Foreground", "Orphan"
	GraceSeconds    *int64
	Subresource     string // "", "status", "scale"
}

// VersionInfo is the API server's version.
type VersionInfo struct {
	Git          string // "v1.34.0"
	Major, Minor int
}

// Access is one question to the authorizer (SelfSubjectAccessReview).
type Access struct {
	Verb, Group, Resource, Subresource, Namespace, Name string
}

// Reader reads a cluster and asks for dry-runs. It changes nothing. Safe for
// concurrent use; requests in flight are bounded.
type Reader interface {
	// Context names the cluster as the kubeconfig does.
	Context() string
	// UID is the kube-system namespace's UID, the cluster's identity.
	UID(ctx context.Context) (string, error)
	Version(ctx context.Context) (VersionInfo, error)
	// Resolve maps a name as kubectl takes it ("deploy", "deployments.apps",
	// "virtualservices.networking.istio.io") to a resource; unknown names give
	// an error with the nearest known one. It refreshes discovery once on a miss.
	Resolve(ctx context.Context, name string) (Resource, error)
	// ResourceFor maps a kind to its resource. ErrNoKind if the server has none.
	ResourceFor(ctx context.Context, gvk schema.GroupVersionKind) (Resource, error)
	// Resources lists all listable resources (preferred versions).
	Resources(ctx context.Context) ([]Resource, error)
	// Get reads one object. A missing one is ErrNotFound.
	Get(ctx context.Context, ref Ref) (*Object, error)
	// List goes through a resource and calls each for every object, stopping
	// at its first error. Objects come in the server's order; each is called
	// while the answer still comes: it takes no time, and asks the server nothing.
	List(ctx context.Context, res Resource, o ListOptions, each func(*Object) error) error
	// DryRunApply and its siblings ask the API server
	// (admission included) what the write would give.
	DryRunApply(ctx context.Context, obj *Object, o ApplyOptions) (*Object, error)
	DryRunPatch(ctx context.Context, ref Ref, pt types.PatchType, patch []byte, o WriteOptions) (*Object, error)
	DryRunCreate(ctx context.Context, obj *Object, o WriteOptions) (*Object, error)
	DryRunReplace(ctx context.Context, obj *Object, o WriteOptions) (*Object, error)
	DryRunDelete(ctx context.Context, ref Ref, o WriteOptions) error
	DryRunEvict(ctx context.Context, ref Ref, o WriteOptions) error
	// CanI asks the authorizer about each question; one answer each, with the reason.
	CanI(ctx context.Context, q ...Access) ([]bool, error)
	Logs(ctx context.Context, namespace, pod, container string, tail int64, previous bool) (string, error)
	// Probe has the API server send one GET to what listens in a pod or behind a
	// Service. Whatever came back from there is an answer, a 503 too. Where
	// nobody answered the API server, the error is ErrUnreachable and has its
	// Code; ErrUnreachable without one is the API server itself.
	Probe(ctx context.Context, p Probe) (*ProbeAnswer, error)
	// WaitFor calls done with the present state of each ref (nil for an absent
	// object) whenever it may have changed, until done returns true, its error,
	// ctx's error, or timeout (ErrTimeout). It watches on a real clock and
	// polls on a virtual one.
	WaitFor(ctx context.Context, refs []Ref, timeout time.Duration, done func(now []*Object) (bool, error)) error
}

// Writer changes a cluster. Only the engine is given one. Every method sends
// its request at most once; one that was refused for a conflict of a manager with
// itself (see Client.Apply) was not made and counts as not sent.
type Writer interface {
	Reader
	Apply(ctx context.Context, obj *Object, o ApplyOptions) (*Object, error)
	Create(ctx context.Context, obj *Object, o WriteOptions) (*Object, error)
	Replace(ctx context.Context, obj *Object, o WriteOptions) (*Object, error)
	Patch(ctx context.Context, ref Ref, pt types.PatchType, patch []byte, o WriteOptions) (*Object, error)
	Delete(ctx context.Context, ref Ref, o WriteOptions) error
	Evict(ctx context.Context, ref Ref, o WriteOptions) error
}

// Conditions of a request that callers branch on; match with errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrNoKind      = errors.New("the server does not know this kind")
	ErrConflict    = errors.New("conflict") // stale version, UID precondition, or field ownership
	ErrExists      = errors.New("already exists")
	ErrDenied      = errors.New("denied")                            // 401, 403, admission
	ErrInvalid     = errors.New("invalid")                           // 400, 422
	ErrThrottled   = errors.New("throttled")                         // 429: refused before execution
	ErrDisruption  = errors.New("would violate a disruption budget") // 429 of an eviction
	ErrUnknown     = errors.New("outcome unknown")                   // sent, not answered (or 5xx): it may have happened
	ErrTimeout     = errors.New("timed out")
	ErrUnreachable = errors.New("cluster unreachable") // never sent
)

// FieldConflict is one field that another manager owns.
type FieldConflict struct {
	Field, Manager, Message string
}

// ConflictError is an ErrConflict about field ownership.
type ConflictError struct {
	Ref    Ref
	Fields []FieldConflict
}

// Error names the object and every manager with its fields.
func (e *ConflictError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + " is owned by " + f.Manager
	}
	return e.Ref.String() + ": field conflict: " + strings.Join(parts, ", ")
}

// Is makes a ConflictError match ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
