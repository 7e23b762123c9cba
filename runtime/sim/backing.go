package sim

import (
	"fmt"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/plain"
)

// Backing is a cluster that stands behind a simulated one, which begins as what
// it holds and keeps what is written to itself: copy on write. Objects are asked
// for when something first looks for them, by a request or by a controller, and
// then never again. Several may call it at a time.
type Backing interface {
	// Fetch gives the objects of a part of the cluster. API errors 403 and 405 mean
	// that this part may not be looked at; a kind that is not served has no objects.
	// Any other error ends the simulation: the cluster does not answer any more.
	Fetch(Part) ([]*unstructured.Unstructured, error)
	// Ask hands a request on that changes nothing: a review, or a write as a
	// dry-run. ok is false where the backing gives no answer, so that the
	// simulation has to find its own. An answer may be an API error; any other error
	// ends the simulation, as that of Fetch does.
	Ask(Question) (answer []byte, ok bool, err error)
}

// Part is what is fetched of a resource: all of it, what is in a namespace, the
// one of a name (none where there is no such), or of the whole cluster at least
// what a label selector matches.
type Part struct {
	schema.GroupVersionResource
	Namespace, Name, Labels string
}

// Question is a request on its way to the backing.
type Question struct {
	Verb                 string // create, update, patch, get
	GVR                  schema.GroupVersionResource
	Namespace, Name, Sub string
	Query                map[string][]string
	ContentType, Accept  string
	Body                 []byte
}

// Served is a resource that the backing serves.
type Served struct {
	Group      string
	Versions   []string // preferred first
	Plural     string
	Singular   string
	Kind       string
	Namespaced bool
	Short      []string
	Categories []string
}

// wideAfter is how many namespaces of a kind are asked for one by one; then all
// of them are.
const wideAfter = 8

// backed is what a simulated cluster knows of its backing.
type backed struct {
	c     *Cluster
	src   Backing
	known map[schema.GroupResource]*reach
	// origin are the objects as they came: an entry that is still stored has not
	// been changed.
	origin map[objectKey]*entry
	said   map[string]said // of dry-runs, by keyOf
	coming map[Part]*flight
	shared *plain.Sharer
	events []objectKey // of the simulation's own, oldest first
	err    error       // the backing does not answer any more
}

// reach is how much of a kind is known.
type reach struct {
	all      bool
	refused  error            // why not all of it may be listed
	ns       map[string]error // namespaces that were asked for; the error is a refusal
	one      map[nsName]error // single objects, in the same way
	labelled map[string]bool  // label selectors that were asked for in all namespaces
	asked    int
}

// unasked are the kinds that are only fetched for a request that names them:
// the simulation writes Events, which are new, and reads none.
func unasked(gr schema.GroupResource) bool { return gr.Resource == "events" }

// behind puts the simulated cluster in front of its backing.
func (c *Cluster) behind(src Backing, served []Served) error {
	b := &backed{c: c, src: src, known: map[schema.GroupResource]*reach{}, origin: map[objectKey]*entry{}, said: map[string]said{}, coming: map[Part]*flight{}, shared: plain.NewSharer()}
	c.st.backed = b
	if err := b.serve(served); err != nil {
		return err
	}
	b.need(grCRDs, "", "")
	b.need(grNamespaces, "", "")
	if b.err != nil {
		return fmt.Errorf("twin: %w", b.err)
	}
	for _, s := range served {
		if gr := (schema.GroupResource{Group: s.Group, Resource: s.Plural}); c.reg.byName[gr] == nil {
			c.reg.add(foreign(s))
		}
	}
	return nil
}

// serve leaves of the built-in resources those that the backing serves.
func (b *backed) serve(served []Served) error {
	of := map[schema.GroupResource]Served{}
	for _, s := range served {
		of[schema.GroupResource{Group: s.Group, Resource: s.Plural}] = s
	}
	for _, r := range slices.Clone(b.c.reg.order) {
		s, ok := of[r.gr()]
		if !ok {
			b.c.reg.drop(r)
			continue
		}
		var both []string
		for _, v := range r.versions {
			if slices.Contains(s.Versions, v) {
				both = append(both, v)
			}
		}
		if len(both) == 0 {
			b.c.reg.drop(r)
			continue
		}
		r.versions = both
		if !slices.Contains(both, r.storage) {
			r.storage = both[0]
		}
	}
	for _, gr := range []schema.GroupResource{grNamespaces, grPods, grServices} {
		if b.c.reg.byName[gr] == nil {
			return fmt.Errorf("twin: the cluster does not serve %s", gr)
		}
	}
	return nil
}

// foreign is a resource that the simulation knows nothing of: its objects are
// held as they are, without a schema.
func foreign(s Served) *resource {
	r := &resource{
		group: s.Group, versions: s.Versions, storage: s.Versions[0], plural: s.Plural, singular: s.Singular, kind: s.Kind,
		namespaced: s.Namespaced, short: s.Short, categories: s.Categories,
		crd: &crd{listKind: s.Kind + "List", versions: map[string]*crdVersion{}},
	}
	r.crd.spec.PreserveUnknownFields = true
	for _, v := range s.Versions {
		r.crd.versions[v] = &crdVersion{}
	}
	return r
}

// need fetches what somebody is about to look at. name "" is all of the
// namespace, and namespace "" all of the kind. The lock is held.
func (s *store) need(gr schema.GroupResource, namespace, name string) {
	if s.backed != nil && !unasked(gr) {
		s.backed.need(gr, namespace, name)
	}
}

func (b *backed) need(gr schema.GroupResource, namespace, name string) {
	res, k := b.unknown(gr)
	if k == nil {
		return
	}
	if !res.namespaced {
		namespace = ""
	}
	single := name != "" && gr == grSecrets
	departed := namespace != "" && b.departed(res, namespace)
	if namespace == "" && name == "" || !res.namespaced && !single || k.asked >= wideAfter && !single && !departed {
		if k.refused == nil && b.fetch(res, k, "", "") {
			return
		}
	}
	if namespace != "" && !single {
		if _, asked := k.ns[namespace]; !asked {
			if !departed {
				k.asked++
			}
			b.fetch(res, k, namespace, "")
		}
		if k.ns[namespace] == nil {
			return
		}
	}
	if name == "" || namespace == "" && res.namespaced {
		return
	}
	if err, asked := k.ns[namespace]; asked && err == nil {
		return
	}
	if _, asked := k.one[nsName{namespace, name}]; !asked {
		b.fetch(res, k, namespace, name)
	}
}

// unknown is what is known so far of a kind of which something may not be; nil
// where there is nothing to ask for any more.
func (b *backed) unknown(gr schema.GroupResource) (*resource, *reach) {
	res := b.c.reg.byName[gr]
	if res == nil || res.createOnly || b.err != nil {
		return res, nil
	}
	k := b.known[gr]
	if k == nil {
		k = &reach{ns: map[string]error{}, one: map[nsName]error{}, labelled: map[string]bool{}}
		b.known[gr] = k
	}
	if k.all {
		return res, nil
	}
	return res, k
}

// needLabelled fetches what a label selector matches in all namespaces: of the
// deployments of a large cluster an istiod is one of thousands.
func (b *backed) needLabelled(gr schema.GroupResource, selector string) {
	res, k := b.unknown(gr)
	if k == nil || k.labelled[selector] {
		return
	}
	if k.refused == nil && k.asked < wideAfter {
		k.asked++
		objs, err := b.src.Fetch(Part{GroupVersionResource: res.stored(), Labels: selector})
		if err == nil {
			for _, at := range b.accept(res, k, objs, true) {
				k.one[at] = nil
			}
			k.labelled[selector] = true
			return
		}
	}
	b.need(gr, "", "") // which may be let through, and hears what there is to say
}

// accept stores those of the fetched objects that were not known before, and
// gives the names of all. wide is whether they are of all namespaces, some of
// which may be known already.
func (b *backed) accept(res *resource, k *reach, objs []*unstructured.Unstructured, wide bool) []nsName {
	names := make([]nsName, 0, len(objs))
	for _, o := range objs {
		at := nsName{o.GetNamespace(), o.GetName()}
		names = append(names, at)
		if _, asked := k.one[at]; asked {
			continue
		}
		if nerr, asked := k.ns[at.namespace]; asked && nerr == nil && wide {
			continue
		}
		b.place(res, at, o)
	}
	return names
}

// fetch asks the backing and takes the answer in; false where it was refused.
func (b *backed) fetch(res *resource, k *reach, namespace, name string) bool {
	objs, err := b.arrive(Part{GroupVersionResource: res.stored(), Namespace: namespace, Name: name})
	refused := err != nil && (apierrors.IsForbidden(err) || apierrors.IsMethodNotSupported(err))
	if err != nil && !refused {
		b.err = err
		return false
	}
	b.accept(res, k, objs, name == "" && namespace == "")
	switch {
	case name != "":
		k.one[nsName{namespace, name}] = err
	case namespace != "":
		k.ns[namespace] = err
	case err != nil:
		k.refused = err
	default:
		k.all = true
	}
	return err == nil
}

// place stores an object as it came. Nobody is told: it was there before.
func (b *backed) place(res *resource, at nsName, o *unstructured.Unstructured) {
	rv, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil { // versions are opaque; only that they grow is relied on here
		rv = b.c.st.rv
	}
	b.c.st.rv = max(b.c.st.rv, rv)
	if o.GetAPIVersion() == "" {
		o.SetGroupVersionKind(res.gvk(res.storage))
	}
	k := objectKey{res.gr(), at.namespace, at.name}
	b.share(o, nil)
	b.shareField(o.Object, nil, "status") // what is written later is new each time
	e := &entry{obj: o, rv: rv, unkept: true}
	b.origin[k] = e
	var prev *entry
	if t := b.c.st.tables[k.gr]; t != nil {
		prev = t.items[at]
	}
	b.c.st.place(k, prev, e)
	if k.gr == grCRDs {
		b.c.crdChanged(change{rv: rv, key: k, next: e})
	}
}

// shareable are the fields of an object that are alike in many: the spec of a pod,
// and what its metadata say of its owner.
var shareable = []string{"labels", "annotations", "ownerReferences"}

// share makes what is about to be stored hold its parts in common with other
// objects; prev is what it was made from. A large cluster fits into memory by it.
func (b *backed) share(o, prev *unstructured.Unstructured) {
	var was map[string]any
	if prev != nil {
		was = prev.Object
	}
	b.shareField(o.Object, was, "spec")
	meta, _ := o.Object["metadata"].(map[string]any)
	wasMeta, _ := was["metadata"].(map[string]any)
	for _, field := range shareable {
		b.shareField(meta, wasMeta, field)
	}
}

func (b *backed) shareField(m, was map[string]any, field string) {
	v, ok := m[field]
	if !ok || plain.Same(v, was[field]) { // it is shared already
		return
	}
	m[field] = b.shared.Share(v)
}

// mostEvents bounds how many Events of the simulation a twin keeps: a real
// cluster forgets them, too, and those of a large rollout outweigh its pods.
const mostEvents = 2000

// happened notes a new Event, and forgets the oldest one of too many.
func (b *backed) happened(k objectKey) {
	b.events = append(b.events, k)
	for len(b.events) > mostEvents {
		oldest := b.events[0]
		b.events = b.events[1:]
		if b.c.st.get(oldest) != nil { // else its namespace went, and it with it
			b.c.drop(oldest)
		}
	}
}

// refusal is why a request may not look at what it asks for; nil where it may.
func (b *backed) refusal(gr schema.GroupResource, namespace, name string) error {
	k := b.known[gr]
	if b.err != nil {
		return apierrors.NewServiceUnavailable(b.err.Error())
	}
	if k == nil || k.all {
		return nil
	}
	if name != "" {
		if err, asked := k.one[nsName{namespace, name}]; asked {
			return err
		}
	}
	if namespace != "" {
		return k.ns[namespace]
	}
	return k.refused
}

// untouched reports whether what a write begins from is what the backing has:
// the object, or its absence, the definition of its kind, and its namespace.
func (b *backed) untouched(res *resource, k objectKey) bool {
	if b.c.st.get(k) != b.origin[k] || b.refusal(k.gr, k.namespace, k.name) != nil {
		return false
	}
	if res.crd != nil {
		def := objectKey{grCRDs, "", res.plural + "." + res.group}
		if e := b.c.st.get(def); e != b.origin[def] {
			return false
		}
	}
	if res.namespaced {
		ns := objectKey{grNamespaces, "", k.namespace}
		return b.origin[ns] != nil && b.c.st.get(ns) != nil
	}
	return true
}

// owners are the kinds whose deletion takes others along, and those others. What
// other kinds own is among ownedByOthers.
var (
	grReplicaSets = schema.GroupResource{Group: "apps", Resource: "replicasets"}
	grHistory     = schema.GroupResource{Group: "apps", Resource: "controllerrevisions"}
	owners        = map[string][]schema.GroupResource{
		"deployments": {grReplicaSets}, "replicasets": {grPods}, "statefulsets": {grPods, grHistory}, "daemonsets": {grPods, grHistory},
		"jobs": {grPods}, "cronjobs": {grJobs}, "services": {grEndpoints, grSlices}, "pods": nil, "endpoints": nil, "endpointslices": nil,
		"configmaps": nil, "secrets": nil, "serviceaccounts": nil, "events": nil, "leases": nil, "controllerrevisions": nil,
	}
	ownedByOthers = []schema.GroupResource{
		grDeployments, grServices, grServiceAccounts, grConfigMaps, grPDBs, {Group: "autoscaling", Resource: "horizontalpodautoscalers"},
	}
)

// needDependents fetches what an object may own, before it goes.
func (s *store) needDependents(k objectKey) {
	if s.backed == nil || k.namespace == "" {
		return
	}
	kinds, known := owners[k.gr.Resource]
	if !known {
		kinds = ownedByOthers
	}
	for _, gr := range kinds {
		s.need(gr, k.namespace, "")
	}
}

// needContents fetches everything that goes with a namespace or a definition.
func (c *Cluster) needContents(k objectKey) {
	if c.st.backed == nil {
		return
	}
	switch k.gr {
	case grNamespaces:
		for _, r := range slices.Clone(c.reg.order) {
			if r.namespaced {
				c.st.need(r.gr(), k.name, "")
			}
		}
	case grCRDs:
		if r := c.definedBy(k); r != nil {
			c.st.need(r.gr(), "", "")
		}
	}
}
