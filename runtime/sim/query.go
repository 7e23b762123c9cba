package sim

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/plain"
)

// format is the form in which objects are answered.
type format int

const (
	formatObject format = iota
	formatPartial
	formatTable
)

// query is a request to a resource, taken apart.
type query struct {
	verb        string // get, list, watch, create, update, patch, delete, deletecollection
	res         *resource
	version     string
	namespace   string
	name        string
	subresource string
	format      format
	yaml        bool // the answer is wanted in YAML
	list        metav1.ListOptions
	values      url.Values
	userAgent   string
	user        *User
	now         time.Time // virtual, when the request came
}

// target is a request path before its resource is looked up.
type target struct {
	group, version, namespace, plural, name, sub string
	watch                                        bool
}

// parsePath takes /api/v1/… and /apis/G/V/… apart; false for other paths.
func parsePath(path string) (target, bool) {
	p := strings.Split(strings.Trim(path, "/"), "/")
	var t target
	switch {
	case len(p) >= 3 && p[0] == "api":
		t.version, p = p[1], p[2:]
	case len(p) >= 4 && p[0] == "apis":
		t.group, t.version, p = p[1], p[2], p[3:]
	default:
		return t, false
	}
	if p[0] == "watch" && len(p) > 1 {
		t.watch, p = true, p[1:]
	}
	if p[0] == "namespaces" && len(p) > 2 && !(t.group == "" && (p[2] == "status" || p[2] == "finalize") && len(p) == 3) {
		t.namespace, p = p[1], p[2:]
	}
	t.plural = p[0]
	if len(p) > 1 {
		t.name = p[1]
	}
	if len(p) > 2 {
		t.sub = strings.Join(p[2:], "/")
		if p[2] == "proxy" {
			t.sub = p[2] // what follows is the path of the proxied request
		}
	}
	return t, true
}

// parse makes a query of a request. The cluster's lock must be held.
func (c *Cluster) parse(r *http.Request, t target) (*query, error) {
	q := &query{
		version: t.version, namespace: t.namespace, name: t.name, subresource: t.sub,
		values: r.URL.Query(), userAgent: r.UserAgent(), now: c.now,
	}
	q.res = c.reg.byName[schema.GroupResource{Group: t.group, Resource: t.plural}]
	if q.res == nil || !q.res.serves(t.version) {
		return nil, errNotServed()
	}
	if q.res.namespaced && t.namespace == "" && t.name != "" || !q.res.namespaced && t.namespace != "" {
		return nil, errNotServed()
	}
	var err error
	if q.format, q.yaml, err = negotiate(r.Header.Get("Accept")); err != nil {
		return nil, err
	}
	if q.list, err = listOptions(q.values); err != nil {
		return nil, err
	}
	q.list.Watch = q.list.Watch || t.watch
	if t.watch && t.name != "" {
		q.list.FieldSelector, q.name = "metadata.name="+t.name, ""
	}
	return q, q.setVerb(r.Method)
}

// listOptions reads the parameters of a list or watch.
func listOptions(v url.Values) (metav1.ListOptions, error) {
	o := metav1.ListOptions{
		LabelSelector: v.Get("labelSelector"), FieldSelector: v.Get("fieldSelector"), Continue: v.Get("continue"),
		ResourceVersion: v.Get("resourceVersion"), ResourceVersionMatch: metav1.ResourceVersionMatch(v.Get("resourceVersionMatch")),
	}
	o.Watch = v.Has("watch") && v.Get("watch") != "false" && v.Get("watch") != "0"
	o.AllowWatchBookmarks = v.Get("allowWatchBookmarks") == "true" || v.Get("allowWatchBookmarks") == "1"
	if s := v.Get("sendInitialEvents"); s != "" {
		o.SendInitialEvents = new(s == "true" || s == "1")
	}
	number := func(name string) (int64, error) {
		if v.Get(name) == "" {
			return 0, nil
		}
		n, err := strconv.ParseInt(v.Get(name), 10, 64)
		if err != nil {
			return 0, apierrors.NewBadRequest(err.Error())
		}
		return n, nil
	}
	var err error
	if o.Limit, err = number("limit"); err != nil {
		return o, err
	}
	timeout, err := number("timeoutSeconds")
	if timeout > 0 {
		o.TimeoutSeconds = &timeout
	}
	return o, err
}

func (q *query) setVerb(method string) error {
	switch method {
	case http.MethodGet, http.MethodHead:
		switch {
		case q.name != "":
			q.verb = "get"
		case q.list.Watch:
			q.verb = "watch"
		default:
			q.verb = "list"
		}
	case http.MethodPost:
		q.verb = "create"
	case http.MethodPut:
		q.verb = "update"
	case http.MethodPatch:
		q.verb = "patch"
	case http.MethodDelete:
		q.verb = "delete"
		if q.name == "" {
			q.verb = "deletecollection"
		}
	default:
		return errMethod()
	}
	if (q.verb == "update" || q.verb == "patch") && q.name == "" {
		return errMethod()
	}
	if q.verb == "create" && q.res.namespaced && q.namespace == "" || q.verb == "create" && q.name != "" && q.subresource == "" {
		return errMethod()
	}
	if q.name == "" && (q.verb == "update" || q.verb == "patch") {
		return errMethod()
	}
	if q.res.createOnly && q.verb != "create" {
		return errMethod()
	}
	return nil
}

func errMethod() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 405, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource", Details: &metav1.StatusDetails{},
	}}
}

func (q *query) dryRun() (bool, error) {
	v := q.values["dryRun"]
	if len(v) == 0 {
		return false, nil
	}
	return slices.Equal(v, []string{metav1.DryRunAll}), nil
}

// validOptions refuses parameters of a write by the API server's own rules.
func (q *query) validOptions() error {
	dry, manager, fields := q.values["dryRun"], q.values.Get("fieldManager"), q.values.Get("fieldValidation")
	kind, errs := "", field.ErrorList(nil)
	switch q.verb {
	case "create":
		kind, errs = "CreateOptions", validation.ValidateCreateOptions(&metav1.CreateOptions{DryRun: dry, FieldManager: manager, FieldValidation: fields})
	case "update":
		kind, errs = "UpdateOptions", validation.ValidateUpdateOptions(&metav1.UpdateOptions{DryRun: dry, FieldManager: manager, FieldValidation: fields})
	case "patch":
		// What a patch of each type needs is judged with its type.
		kind, errs = "PatchOptions", slices.Concat(validation.ValidateDryRun(field.NewPath("dryRun"), dry), validation.ValidateFieldManager(manager, field.NewPath("fieldManager")), validation.ValidateFieldValidation(field.NewPath("fieldValidation"), fields))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: kind}, "", errs)
}

// writeOptions reads what a write's parameters say. The field manager is the
// first part of the user agent when none is named.
func (q *query) writeOptions(warnings *[]string) (writeOptions, error) {
	if err := q.validOptions(); err != nil {
		return writeOptions{}, err
	}
	dry, err := q.dryRun()
	if err != nil {
		return writeOptions{}, err
	}
	o := writeOptions{user: q.user, version: q.version, manager: q.values.Get("fieldManager"), askedManager: q.values.Get("fieldManager"), askedValidation: q.values.Get("fieldValidation"), subresource: q.subresource, dryRun: dry, validation: q.values.Get("fieldValidation"), warnings: warnings}
	if o.manager == "" && q.verb != "apply" {
		o.manager, _, _ = strings.Cut(q.userAgent, "/")
		if o.manager == "" {
			o.manager = "unknown"
		}
	}
	if o.validation == "" {
		o.validation = "Warn"
	}
	return o, nil
}

func (q *query) filter() (filter, error) {
	f := filter{gr: q.res.gr(), namespace: q.namespace}
	if q.list.LabelSelector != "" {
		sel, err := labels.Parse(q.list.LabelSelector)
		if err != nil {
			return f, apierrors.NewBadRequest(err.Error())
		}
		f.labels = sel
	}
	var err error
	f.fields, err = parseFields(q.res, q.version, q.list.FieldSelector)
	return f, err
}

func (q *query) watchContentType() string { return "application/json" }

// render gives an entry in the asked version and form.
func (q *query) render(c *Cluster, e *entry) ([]byte, error) {
	switch q.format {
	case formatPartial:
		return plain.Encode(map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": e.obj.Object["metadata"]})
	case formatTable:
		return q.table(c, listing{rv: e.rv, entries: []*entry{e}})
	case formatObject:
	}
	if e.obj.GetAPIVersion() == q.res.gvk(q.version).GroupVersion().String() {
		return e.json()
	}
	out, err := c.convert(q.res, e.obj, q.version)
	if err != nil {
		return nil, err
	}
	return plain.Encode(out.Object)
}
