package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/sim/kinds"
)

// handle answers what is neither list nor watch nor a plain get. The lock is
// held.
func (c *Cluster) handle(r *http.Request, q *query, body []byte, warnings *[]string) (reply, error) {
	switch {
	case q.res.createOnly:
		if out, ok, err := c.askReview(r, q, body); ok {
			return out, err
		}
		return c.review(r, q, body)
	case q.subresource == "scale":
		return c.scale(r, q, body, warnings)
	case q.res.gr() == grPods && q.subresource == "eviction" && q.verb == "create":
		return c.evict(r, q, body)
	case q.res.gr() == grPods && q.subresource == "binding" && q.verb == "create":
		return c.bind(r, q, body)
	case q.res.gr() == grPods && q.subresource == "log" && q.verb == "get":
		if out, ok, err := c.askLog(r, q); ok {
			return out, err
		}
		return c.podLog(q)
	case q.res.gr() == grServiceAccounts && q.subresource == "token" && q.verb == "create":
		return c.token(r, q, body)
	case q.subresource == "status" && q.res.status:
		if q.verb == "get" {
			e := c.st.get(objectKey{q.res.gr(), q.namespace, q.name})
			if e == nil {
				return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
			}
			return c.objectReply(q, http.StatusOK, e.obj)
		}
	case q.res.gr() == grNamespaces && q.subresource == "finalize" && q.verb == "update":
		q.subresource = ""
	case q.subresource != "" && q.res.crd != nil:
		return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
	case q.subresource != "":
		if q.res.crd != nil {
			return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
		}
		return reply{}, errNotServed()
	}
	o, err := q.writeOptions(warnings)
	if err != nil {
		return reply{}, err
	}
	if out, done, err := c.askWrite(r, q, body, o); done {
		return out, err
	}
	switch q.verb {
	case "create":
		obj, err := decodeBody(r, q, body)
		if err != nil {
			return reply{}, err
		}
		if obj.GetResourceVersion() != "" {
			return reply{}, errors.New("resourceVersion should not be set on objects to be created")
		}
		if obj, err = c.create(q.res.gr(), q.namespace, obj, o); err != nil {
			return reply{}, err
		}
		return c.objectReply(q, http.StatusCreated, obj)
	case "update":
		obj, err := decodeBody(r, q, body)
		if err != nil {
			return reply{}, err
		}
		if c.st.get(objectKey{q.res.gr(), q.namespace, q.name}) == nil && q.res.plural == "leases" && q.subresource == "" {
			if uid := obj.GetUID(); uid != "" { // a precondition, which comes before anything else
				//lint:ignore ST1005 the server's own words
				return reply{}, apierrors.NewConflict(q.res.gr(), q.name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: ", uid))
			}
			if obj, err = c.create(q.res.gr(), q.namespace, obj, o); err != nil { // the one kind that an update may create
				return reply{}, err
			}
			return c.objectReply(q, http.StatusCreated, obj)
		}
		if err := c.conditional(q, obj); err != nil {
			return reply{}, err
		}
		if err := c.versionGiven(q, obj); err != nil {
			return reply{}, err
		}
		obj, err = c.update(q.res.gr(), q.namespace, q.name, o, func(*unstructured.Unstructured) (*unstructured.Unstructured, error) { return obj, nil })
		if err != nil {
			return reply{}, err
		}
		return c.objectReply(q, http.StatusOK, obj)
	case "patch":
		return c.patchRequest(r, q, body, o)
	case "delete":
		return c.deleteRequest(r, q, body, warnings)
	case "deletecollection":
		return c.deleteCollection(r, q, body)
	}
	return reply{}, errMethod()
}

// conditional refuses an update of a custom object that names no version: such
// kinds allow no unconditional update.
func (c *Cluster) conditional(q *query, obj *unstructured.Unstructured) error {
	if q.res.crd == nil || obj.GetResourceVersion() != "" || c.st.get(objectKey{q.res.gr(), q.namespace, q.name}) == nil {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: q.res.group, Kind: q.res.plural}, q.name, field.ErrorList{
		field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"),
	})
}

func (c *Cluster) objectReply(q *query, code int, obj *unstructured.Unstructured) (reply, error) {
	converted, err := c.convert(q.res, obj, q.version)
	if err != nil {
		return reply{}, apierrors.NewInternalError(err)
	}
	e := c.st.get(objectKey{q.res.gr(), obj.GetNamespace(), obj.GetName()})
	if e == nil || e.obj != converted {
		e = &entry{obj: converted}
	} // else what is stored is marshalled once for all who read it
	b, err := q.render(c, e)
	if err != nil {
		return reply{}, apierrors.NewInternalError(err)
	}
	return reply{code, "application/json", b}, nil
}

func (c *Cluster) patchRequest(r *http.Request, q *query, body []byte, o writeOptions) (reply, error) {
	pt := types.PatchType(mediaType(r.Header.Get("Content-Type")))
	var force *bool
	if f := q.values.Get("force"); f != "" {
		b := f != "false" && f != "0" // as the server reads a boolean parameter
		force = &b
	}
	if pt == types.ApplyYAMLPatchType {
		o.manager = q.values.Get("fieldManager")
	}
	obj, created, err := c.patch(q.res.gr(), q.namespace, q.name, pt, body, force, o)
	if err != nil {
		return reply{}, err
	}
	code := http.StatusOK
	if created {
		code = http.StatusCreated
	}
	return c.objectReply(q, code, obj)
}

// readDeleteOptions takes them from the body, or from the parameters.
func readDeleteOptions(r *http.Request, q *query, body []byte) (deleteOptions, error) {
	var in metav1.DeleteOptions
	if len(body) > 0 && mediaType(r.Header.Get("Content-Type")) == "application/vnd.kubernetes.protobuf" {
		s := protobuf.NewSerializer(kinds.Scheme(), kinds.Scheme())
		if _, _, err := s.Decode(body, nil, &in); err != nil {
			return deleteOptions{}, apierrors.NewBadRequest(err.Error())
		}
	} else if len(body) > 0 {
		if err := json.Unmarshal(body, &in); err != nil {
			return deleteOptions{}, apierrors.NewBadRequest(err.Error())
		}
	}
	if in.Kind != "" && in.Kind != "DeleteOptions" {
		return deleteOptions{}, apierrors.NewBadRequest(fmt.Sprintf("no kind %q is registered for version %q in scheme \"pkg/runtime/scheme.go:111\"", in.Kind, in.APIVersion))
	}
	if p := q.values.Get("propagationPolicy"); in.PropagationPolicy == nil && p != "" {
		in.PropagationPolicy = new(metav1.DeletionPropagation(p))
	}
	if errs := validation.ValidateDeleteOptions(&in); len(errs) > 0 {
		return deleteOptions{}, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "DeleteOptions"}, "", errs)
	}
	dry, err := q.dryRun()
	if err != nil {
		return deleteOptions{}, err
	}
	o := deleteOptions{user: q.user, dryRun: dry || slices.Contains(in.DryRun, metav1.DryRunAll)}
	if in.PropagationPolicy != nil {
		o.propagation = *in.PropagationPolicy
		//lint:ignore SA1019 old clients send it
	} else if in.OrphanDependents != nil && *in.OrphanDependents {
		o.propagation = metav1.DeletePropagationOrphan
	}
	o.grace = in.GracePeriodSeconds
	if g := q.values.Get("gracePeriodSeconds"); o.grace == nil && g != "" {
		n, err := strconv.ParseInt(g, 10, 64)
		if err != nil {
			return deleteOptions{}, apierrors.NewBadRequest(err.Error())
		}
		o.grace = &n
	}
	if p := in.Preconditions; p != nil {
		if p.UID != nil {
			o.uid = string(*p.UID)
		}
		if p.ResourceVersion != nil {
			o.rv = *p.ResourceVersion
		}
	}
	return o, nil
}

func (c *Cluster) deleteRequest(r *http.Request, q *query, body []byte, warnings *[]string) (reply, error) {
	o, err := readDeleteOptions(r, q, body)
	if err != nil {
		return reply{}, err
	}
	if q.res.group == "batch" && q.res.plural == "jobs" && o.propagation == "" {
		*warnings = append(*warnings, "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning")
	}
	last, err := c.delete(q.res.gr(), q.namespace, q.name, o)
	if err != nil {
		return reply{}, err
	}
	held := c.st.get(objectKey{q.res.gr(), q.namespace, q.name})
	if held != nil && last.GetDeletionTimestamp() != nil || q.res.returnsDeleted() || collects(o.propagation, q.res.gr()) {
		return c.objectReply(q, http.StatusOK, last)
	}
	return jsonReply(http.StatusOK, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: q.name, Group: q.res.group, Kind: q.res.plural, UID: last.GetUID()},
	})
}

func (c *Cluster) deleteCollection(r *http.Request, q *query, body []byte) (reply, error) {
	o, err := readDeleteOptions(r, q, body)
	if err != nil {
		return reply{}, err
	}
	f, err := q.filter()
	if err != nil {
		return reply{}, err
	}
	if q.res.namespaced && q.namespace == "" {
		return reply{}, errMethod()
	}
	l := listing{rv: c.st.rv, entries: c.selectEntries(f)}
	for _, e := range l.entries {
		if _, err := c.delete(q.res.gr(), e.obj.GetNamespace(), e.obj.GetName(), o); err != nil && !apierrors.IsNotFound(err) {
			return reply{}, err
		}
	}
	b, err := l.write(c, q)
	if err != nil {
		return reply{}, apierrors.NewInternalError(err)
	}
	return reply{http.StatusOK, "application/json", b}, nil
}

// isApply tells server-side apply from the other patches in the request log.
func isApply(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), string(types.ApplyYAMLPatchType))
}
