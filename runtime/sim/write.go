package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/sim/kinds"
)

// writeOptions say how one write is to be done.
type writeOptions struct {
	user    *User  // who asks; nil for the cluster itself
	version string // of the API that the object is in; the storage version when empty
	manager string // field manager
	// askedManager and askedValidation are the request's own parameters, empty
	// when it has none.
	askedManager, askedValidation string
	subresource                   string // "", "status" or "scale"
	dryRun                        bool
	foresee                       bool   // a pod goes as far as the injector, which works ahead
	validation                    string // fieldValidation: Strict, Warn or Ignore
	untracked                     bool   // leave managedFields alone
	controller                    bool   // by a controller: trusted to be well-formed
	load                          bool   // by Load: status, uid and timestamps are kept
	managed                       any    // managedFields already computed, by server-side apply
	warnings                      *[]string
}

func (o writeOptions) warn(text string) {
	if o.warnings != nil {
		*o.warnings = append(*o.warnings, text)
	}
}

// create stores a new object through the whole pipeline of the API server:
// defaulting, field management, mutating admission, validation, storage. obj
// is taken over. The answer is in the request's version and may be shared.
func (c *Cluster) create(gr schema.GroupResource, ns string, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	res := c.reg.byName[gr]
	if res == nil {
		return nil, errNotServed()
	}
	if o.version == "" {
		o.version = res.storage
	}
	if o.dryRun {
		defer c.rehearse()()
	}
	if err := c.scopeObject(res, ns, obj); err != nil {
		return nil, err
	}
	if obj.GetResourceVersion() != "" && !o.load {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if err := c.namespaceOpen(res, obj); err != nil {
		return nil, err
	}
	generated := false
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(obj.GetGenerateName() + c.suffix())
		generated = true
	}
	c.clearServerMeta(obj, o)
	obj, err := c.normalize(res, obj, o)
	if err != nil {
		return nil, err
	}
	c.prepareCreate(res, obj, o)
	if o.managed != nil {
		setMeta(obj, "managedFields", o.managed)
	}
	switch {
	case c.unowned(gr):
		setMeta(obj, "managedFields", nil)
	case !o.untracked:
		if obj, err = c.trackNew(res, obj, o); err != nil {
			return nil, err
		}
	}
	if err := c.mayGrant(res, nil, obj, o); err != nil {
		return nil, err
	}
	if obj, err = c.mutate(res, nil, obj, o, "CREATE"); err != nil || o.foresee {
		return obj, err
	}
	if err := c.validateCreate(res, obj, o); err != nil {
		return nil, err
	}
	if err := c.validating(res, nil, obj, o, "CREATE"); err != nil {
		return nil, err
	}
	k := objectKey{gr, obj.GetNamespace(), obj.GetName()}
	for generated && c.st.get(k) != nil {
		k.name = obj.GetGenerateName() + c.suffix()
		obj.SetName(k.name)
	}
	if e := c.st.get(k); e != nil {
		return nil, alreadyThere(gr, e.obj)
	}
	c.allocate(res, obj)
	if obj.GetUID() == "" {
		obj.SetUID(types.UID(c.uid()))
	}
	if gr == grJobs && !o.load {
		selectPods(obj)
	}
	if t := obj.GetCreationTimestamp(); t.IsZero() {
		setMeta(obj, "creationTimestamp", c.timestamp())
	}
	if err := c.writable(); err != nil {
		return nil, err
	}
	if o.dryRun {
		return obj, nil
	}
	stored, err := c.convert(res, obj, res.storage)
	if err != nil {
		return nil, err
	}
	c.commit(k, stored)
	c.afterCreate(k)
	if !o.load && !o.controller {
		c.collectOrphan(k)
	}
	if e := c.st.get(k); e != nil {
		stored = e.obj
	}
	return c.convert(res, stored, o.version)
}

// alreadyThere refuses a creation, and says so when the object is on its way out
// (k8s.io/apiserver registry/generic/registry/store.go, Create).
func alreadyThere(gr schema.GroupResource, obj *unstructured.Unstructured) error {
	err := apierrors.NewAlreadyExists(gr, obj.GetName())
	if obj.GetDeletionTimestamp() != nil {
		err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
	}
	return err
}

// update changes a stored object: change gets the present state in the
// request's version (shared, not to be changed) and returns the wanted one,
// which is taken over.
func (c *Cluster) update(gr schema.GroupResource, ns, name string, o writeOptions, change func(*unstructured.Unstructured) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	res := c.reg.byName[gr]
	if res == nil {
		return nil, errNotServed()
	}
	if o.version == "" {
		o.version = res.storage
	}
	if o.dryRun {
		defer c.rehearse()()
	}
	k := objectKey{gr, ns, name}
	e := c.st.get(k)
	if e == nil {
		return nil, apierrors.NewNotFound(gr, name)
	}
	cur, err := c.convert(res, e.obj, o.version)
	if err != nil {
		return nil, err
	}
	next, err := change(cur)
	if err != nil {
		return nil, err
	}
	if err := c.precondition(gr, name, e, next); err != nil {
		return nil, err
	}
	if err := c.scopeObject(res, ns, next); err != nil {
		return nil, err
	}
	if next.GetName() == "" {
		next.SetName(name)
	}
	if next.GetName() != name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", next.GetName(), name))
	}
	if next, err = c.prepareUpdate(res, cur, next, o); err != nil {
		return nil, err
	}
	switch {
	case c.unowned(gr):
		setMeta(next, "managedFields", nil)
	case o.controller && o.subresource == "status":
		c.trackStatus(cur, next, o)
	case !o.untracked:
		next, err = c.track(res, cur, next, o)
	}
	if err != nil {
		return nil, err
	}
	return c.finishUpdate(res, k, e, cur, next, o)
}

// finishUpdate is the part of an update that server-side apply shares.
func (c *Cluster) finishUpdate(res *resource, k objectKey, e *entry, cur, next *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	if err := c.mayGrant(res, cur, next, o); err != nil {
		return nil, err
	}
	next, err := c.mutate(res, cur, next, o, "UPDATE")
	if err != nil {
		return nil, err
	}
	if err := c.validateUpdate(res, cur, next, o); err != nil {
		return nil, err
	}
	if err := c.validating(res, cur, next, o, "UPDATE"); err != nil {
		return nil, err
	}
	setMeta(next, "resourceVersion", cur.GetResourceVersion())
	if same(cur, next) {
		return cur, nil
	}
	if bumpsGeneration(res, o) && (specChanged(res, cur, next) || !o.controller && generationOfMeta(res, cur, next)) {
		next.SetGeneration(cur.GetGeneration() + 1)
	}
	if err := c.writable(); err != nil {
		return nil, err
	}
	if o.dryRun {
		return next, nil
	}
	stored, err := c.convert(res, next, res.storage)
	if err != nil {
		return nil, err
	}
	if stored.GetDeletionTimestamp() != nil && len(stored.GetFinalizers()) == 0 && !leaving(stored) && c.emptied(k) {
		last := shallow(next) // which is not stored any more, and gets no new version
		c.commit(k, stored)
		c.drop(k)
		return last, nil
	}
	c.commit(k, stored)
	c.afterUpdate(k, e)
	if e := c.st.get(k); e != nil {
		stored = e.obj
	}
	return c.convert(res, stored, o.version)
}

// precondition compares what the client believes to be stored with what is.
func (c *Cluster) precondition(gr schema.GroupResource, name string, e *entry, next *unstructured.Unstructured) error {
	if rv := next.GetResourceVersion(); rv != "" && rv != "0" && rv != e.obj.GetResourceVersion() {
		return apierrors.NewConflict(gr, name, fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if uid := next.GetUID(); uid != "" && uid != e.obj.GetUID() {
		//lint:ignore ST1005 the server's own words
		return apierrors.NewConflict(gr, name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, e.obj.GetUID()))
	}
	return nil
}

// scopeObject makes the object's namespace agree with the request's.
func (c *Cluster) scopeObject(res *resource, ns string, obj *unstructured.Unstructured) error {
	if obj.Object["metadata"] == nil {
		obj.Object["metadata"] = map[string]any{}
	}
	if _, ok := obj.Object["metadata"].(map[string]any); !ok {
		return apierrors.NewBadRequest("metadata is not an object")
	}
	if !res.namespaced {
		if obj.GetNamespace() != "" {
			obj.SetNamespace("")
		}
		return nil
	}
	if obj.GetNamespace() != "" && obj.GetNamespace() != ns {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if obj.GetNamespace() != ns {
		obj.SetNamespace(ns)
	}
	return nil
}

// namespaceOpen refuses to create into a namespace that is missing or going
// (admission plugin NamespaceLifecycle).
func (c *Cluster) namespaceOpen(res *resource, obj *unstructured.Unstructured) error {
	if !res.namespaced || res.createOnly {
		return nil
	}
	ns := obj.GetNamespace()
	e := c.st.get(objectKey{grNamespaces, "", ns})
	if e == nil {
		return apierrors.NewNotFound(grNamespaces, ns)
	}
	if e.obj.GetDeletionTimestamp() != nil {
		err := apierrors.NewForbidden(res.gr(), obj.GetName(), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", ns))
		err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: "NamespaceTerminating", Message: fmt.Sprintf("namespace %s is being terminated", ns), Field: "metadata.namespace",
		})
		return err
	}
	return nil
}

// clearServerMeta removes what only the server may set.
func (c *Cluster) clearServerMeta(obj *unstructured.Unstructured, o writeOptions) {
	meta := obj.Object["metadata"].(map[string]any)
	delete(meta, "selfLink")
	delete(meta, "resourceVersion")
	if o.load {
		return
	}
	for _, f := range []string{"uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"} {
		delete(meta, f)
	}
}

// blank is the empty object that a creation is a change of: for a built-in kind
// the empty Go value, whose structs are there and so are owned by nobody.
func (c *Cluster) blank(res *resource, version string) *unstructured.Unstructured {
	gvk := res.gvk(version)
	if res.crd != nil {
		u := &unstructured.Unstructured{Object: map[string]any{}}
		u.SetGroupVersionKind(gvk)
		return u
	}
	empty := c.blanks[gvk]
	if empty == nil {
		empty = kinds.Empty(gvk)
		c.blanks[gvk] = empty
	}
	u := shallow(&unstructured.Unstructured{Object: empty})
	u.SetGroupVersionKind(gvk)
	return u
}

// convert returns the object in another version of its API. All versions of a
// resource have the same fields here (CRD conversion None), except those of
// the HorizontalPodAutoscaler.
func (c *Cluster) convert(res *resource, obj *unstructured.Unstructured, version string) (*unstructured.Unstructured, error) {
	gvk := res.gvk(version)
	if obj.GetAPIVersion() == gvk.GroupVersion().String() {
		return obj, nil
	}
	if res.group == "autoscaling" {
		return convertHPA(obj, version)
	}
	out := shallow(obj)
	out.SetGroupVersionKind(gvk)
	return out, nil
}

func errNotServed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
	}}
}

func setMeta(obj *unstructured.Unstructured, field string, value any) {
	meta, ok := obj.Object["metadata"].(map[string]any)
	if !ok {
		meta = map[string]any{}
		obj.Object["metadata"] = meta
	}
	if value == nil || value == "" {
		delete(meta, field)
		return
	}
	meta[field] = value
}

// same reports whether a write would change nothing. Such a write gets no new
// resourceVersion.
func same(a, b *unstructured.Unstructured) bool { return kinds.Equal(a.Object, b.Object) }

// withoutGeneration are the built-in resources whose objects have no
// metadata.generation.
var withoutGeneration = " services configmaps secrets serviceaccounts namespaces nodes events endpoints persistentvolumeclaims persistentvolumes resourcequotas limitranges controllerrevisions horizontalpodautoscalers roles rolebindings clusterroles clusterrolebindings leases storageclasses "

func hasGeneration(res *resource) bool {
	return res.crd != nil || !strings.Contains(withoutGeneration, " "+res.plural+" ")
}

// bumpsGeneration leaves out the binding of a pod to a Node, the only change
// that a controller makes to a pod's spec.
func bumpsGeneration(res *resource, o writeOptions) bool {
	return hasGeneration(res) && res.plural != "priorityclasses" && o.subresource != "status" && !(o.controller && res.gr() == grPods)
}

// generationOfMeta reports a change of metadata that raises the generation: the
// annotations of a Deployment and the labels of an EndpointSlice. The revision
// that the controller annotates a Deployment with comes with its status, and
// does not.
func generationOfMeta(res *resource, a, b *unstructured.Unstructured) bool {
	switch res.gr() {
	case grDeployments:
		return !maps.Equal(a.GetAnnotations(), b.GetAnnotations())
	case schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}:
		return !maps.Equal(a.GetLabels(), b.GetLabels())
	}
	return false
}

// specChanged compares everything but the metadata and, where it is a
// subresource, the status.
func specChanged(res *resource, a, b *unstructured.Unstructured) bool {
	skip := func(k string) bool { return k == "metadata" || (k == "status" && res.status) || k == "apiVersion" }
	for k, v := range b.Object {
		if !skip(k) && !sameValue(a.Object[k], v) {
			return true
		}
	}
	for k := range a.Object {
		if _, ok := b.Object[k]; !ok && !skip(k) {
			return true
		}
	}
	return false
}

// sameValue compares JSON values. A number is equal to itself whether it was
// decoded from the log (int64) or came out of a typed default (float64), as it
// is on a real server, which compares typed objects.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, sameValue)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case int64:
		if f, ok := b.(float64); ok {
			return float64(a) == f
		}
	case float64:
		if n, ok := b.(int64); ok {
			return a == float64(n)
		}
	}
	return kinds.Equal(a, b)
}
