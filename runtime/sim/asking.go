package sim

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/plain"
)

// reachable fetches what a request is about, and refuses it with the backing's
// own words where that may not be looked at. The lock is held.
func (c *Cluster) reachable(q *query) error {
	b := c.st.backed
	if b == nil || q.res.createOnly {
		return nil
	}
	b.need(q.res.gr(), q.namespace, q.name)
	return b.refusal(q.res.gr(), q.namespace, q.name)
}

// answering is the error of a backing that has fallen silent while a request
// was answered: what came out of it is not to be trusted.
func (c *Cluster) answering() error {
	if b := c.st.backed; b != nil && b.err != nil {
		return apierrors.NewServiceUnavailable(b.err.Error())
	}
	return nil
}

// Backed is the first error of a backing that does not answer any more.
func (c *Cluster) Backed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st.backed == nil {
		return nil
	}
	return c.st.backed.err
}

// question is the request as the backing is asked.
func (q *query) question(r *http.Request, body []byte) Question {
	return Question{
		Verb: q.verb, GVR: schema.GroupVersionResource{Group: q.res.group, Version: q.version, Resource: q.res.plural},
		Namespace: q.namespace, Name: q.name, Sub: q.subresource, Query: q.values, ContentType: r.Header.Get("Content-Type"), Accept: "application/json", Body: body,
	}
}

// ask hands a question on. Any error but one of the API's says that the backing
// does not answer any more.
func (b *backed) ask(q Question) ([]byte, bool, error) {
	return b.heard(b.src.Ask(q))
}

// heard takes note of an answer.
func (b *backed) heard(data []byte, ok bool, err error) ([]byte, bool, error) {
	var answer apierrors.APIStatus
	if err == nil || errors.As(err, &answer) {
		return data, ok, err
	}
	if b.err == nil {
		b.err = err
	}
	return nil, true, apierrors.NewServiceUnavailable(err.Error())
}

// askReview lets the backing answer a review, which is about its users and
// roles.
func (c *Cluster) askReview(r *http.Request, q *query, body []byte) (reply, bool, error) {
	b := c.st.backed
	if b == nil {
		return reply{}, false, nil
	}
	data, ok, err := b.ask(q.question(r, body))
	return reply{http.StatusCreated, "application/json", data}, ok, err
}

// askLog lets the backing answer for the log of a pod that is still its own.
func (c *Cluster) askLog(r *http.Request, q *query) (reply, bool, error) {
	b := c.st.backed
	k := objectKey{grPods, q.namespace, q.name}
	if b == nil || b.origin[k] == nil || c.st.get(k) == nil || c.st.get(k).obj.GetUID() != b.origin[k].obj.GetUID() {
		return reply{}, false, nil
	}
	data, ok, err := b.ask(q.question(r, nil))
	return reply{http.StatusOK, "text/plain", data}, ok, err
}

// askWrite sends a write to the backing as a dry-run, where it begins from what
// the backing has: its answer then is what would be stored. done is false where
// the simulation has to find out by itself.
func (c *Cluster) askWrite(r *http.Request, q *query, body []byte, o writeOptions) (out reply, done bool, err error) {
	b := c.st.backed
	if b == nil || q.subresource != "" || q.verb == "deletecollection" {
		return reply{}, false, nil
	}
	k := objectKey{q.res.gr(), q.namespace, q.name}
	if q.verb == "create" {
		obj, err := decodeBody(r, q, body)
		if err != nil {
			return reply{}, true, err
		}
		if k.name = obj.GetName(); k.name == "" {
			return reply{}, false, nil
		}
	}
	if !b.untouched(q.res, k) {
		return reply{}, false, nil
	}
	data, ok, err := c.askDryRun(q.question(r, body), o.dryRun)
	if o.dryRun && !b.untouched(q.res, k) { // meanwhile
		return reply{}, false, nil
	}
	switch {
	case !ok:
		return reply{}, false, nil
	case err != nil:
		if outdated(err) {
			b.refresh(q.res, k)
		}
		return reply{}, true, err
	case q.verb == "delete":
		return reply{}, false, nil // may be; how, the simulation knows
	}
	obj, err := decodeJSON(data)
	if err != nil {
		return reply{}, true, err
	}
	before, code := c.st.get(k), http.StatusOK
	if before == nil {
		code = http.StatusCreated
	}
	if obj, err = c.take(q.res, k, obj, o); err != nil {
		return reply{}, true, err
	}
	if o.dryRun && before != nil && before.obj.GetGeneration() != obj.GetGeneration() {
		c.foresee(k.gr, obj)
	}
	out, err = c.objectReply(q, code, obj)
	return out, true, err
}

// said is what the backing answered to a write.
type said struct {
	data []byte
	ok   bool
	err  error
}

// askDryRun asks about a write, and once only: the plan of a step, its forecast
// and the gates ask the same of a cluster that is taken to stand still. What is a
// dry-run of the twin itself changes nothing in it, so that others may ask at the
// same time. Both locks are held.
func (c *Cluster) askDryRun(q Question, dryRun bool) ([]byte, bool, error) {
	b := c.st.backed
	key := b.keyOf(q)
	if s, known := b.said[key]; known {
		return s.data, s.ok, s.err
	}
	ask := func() (s said) {
		s.data, s.ok, s.err = b.src.Ask(q)
		return s
	}
	var s said
	if dryRun {
		c.mu.Unlock()
		c.writing.Unlock()
		s = ask()
		c.writing.Lock()
		c.mu.Lock()
	} else {
		s = ask()
	}
	s.data, s.ok, s.err = b.heard(s.data, s.ok, s.err)
	if dryRun && s.ok && s.err == nil { // what was refused may have been so in passing
		b.said[key] = s
	}
	return s.data, s.ok, s.err
}

// keyOf tells questions apart. What a write demands of its target (its uid and its
// resourceVersion) is left out where the target is that: who asks for the same
// without demanding it gets the same answer.
func (b *backed) keyOf(q Question) string {
	query := url.Values{}
	for k, v := range q.Query {
		query[k] = v
	}
	query.Set("dryRun", metav1.DryRunAll) // the backing is asked for nothing else
	body := q.Body
	if e := b.c.st.get(objectKey{q.GVR.GroupResource(), q.Namespace, q.Name}); e != nil {
		body = withoutDemands(body, e.obj)
	}
	return strings.Join([]string{q.Verb, q.GVR.String(), q.Namespace, q.Name, q.Sub, query.Encode(), q.ContentType, string(body)}, "\x00")
}

// withoutDemands is a body that is a JSON object without the metadata in which it
// agrees with what is there.
func withoutDemands(body []byte, there *unstructured.Unstructured) []byte {
	if !bytes.Contains(body, []byte(`"uid"`)) && !bytes.Contains(body, []byte(`"resourceVersion"`)) {
		return body // as most are, and a definition is large
	}
	m, err := plain.Decode(body)
	meta, _ := m["metadata"].(map[string]any)
	if err != nil || meta == nil {
		return body
	}
	for field, is := range map[string]string{"uid": string(there.GetUID()), "resourceVersion": there.GetResourceVersion()} {
		if meta[field] == is {
			delete(meta, field)
		}
	}
	if len(meta) == 0 {
		delete(m, "metadata")
	}
	if out, err := plain.Encode(m); err == nil { // with its keys in order
		return out
	}
	return body
}

// refresh reads an untouched object anew: the backing has another version of it
// than was fetched.
func (b *backed) refresh(res *resource, k objectKey) {
	clear(b.said) // it does not stand still
	objs, err := b.src.Fetch(Part{GroupVersionResource: res.stored(), Namespace: k.namespace, Name: k.name})
	switch {
	case err != nil:
		if !apierrors.IsForbidden(err) {
			b.err = err
		}
	case len(objs) == 1:
		prev := b.c.st.get(k)
		b.place(res, nsName{k.namespace, k.name}, objs[0])
		b.c.st.remember(change{rv: b.c.st.rv, key: k, prev: prev, next: b.c.st.get(k)})
	case b.c.st.get(k) != nil:
		b.c.st.table(k.gr).delete(nsName{k.namespace, k.name})
		delete(b.origin, k)
	}
}

// take stores what the backing answered to a dry-run. What a dry-run makes up
// (uid, time of creation) is the simulation's own.
func (c *Cluster) take(res *resource, k objectKey, obj *unstructured.Unstructured, o writeOptions) (*unstructured.Unstructured, error) {
	if o.dryRun {
		defer c.rehearse()()
	}
	e := c.st.get(k)
	if e == nil {
		obj.SetUID(types.UID(c.uid()))
		setMeta(obj, "creationTimestamp", c.timestamp())
		setMeta(obj, "resourceVersion", nil)
	} else {
		obj.SetUID(e.obj.GetUID())
		obj.SetResourceVersion(e.obj.GetResourceVersion())
	}
	stored, err := c.convert(res, obj, res.storage)
	if err != nil {
		return nil, err
	}
	if e != nil && same(e.obj, stored) {
		return c.convert(res, e.obj, o.version)
	}
	if o.dryRun {
		return obj, nil
	}
	c.commit(k, stored)
	if e == nil {
		c.afterCreate(k)
	} else {
		c.afterUpdate(k, e)
	}
	if e := c.st.get(k); e != nil {
		stored = e.obj
	}
	return c.convert(res, stored, o.version)
}
