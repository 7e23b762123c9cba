package sim

import (
	"errors"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// FaultKind says what goes wrong.
type FaultKind string

// The kinds of faults.
const (
	// FaultStatus answers with Code, Reason, Message and RetryAfter.
	FaultStatus FaultKind = "status"
	// FaultConflict answers 409.
	FaultConflict FaultKind = "conflict"
	// FaultThrottle answers 429 with RetryAfter (1 s when zero).
	FaultThrottle FaultKind = "throttle"
	// FaultTimeout ends the request without an answer, as a client's deadline
	// would: through Config the client sees a timeout error, over a socket 504.
	FaultTimeout FaultKind = "timeout"
	// FaultReset breaks the connection without an answer.
	FaultReset FaultKind = "reset"
	// FaultDeny answers as an admission webhook that refuses, dry runs too.
	FaultDeny FaultKind = "deny"
	// FaultWatchCut ends a watch after Events events.
	FaultWatchCut FaultKind = "watch-cut"
	// FaultHook only calls Hook.
	FaultHook FaultKind = "hook"
)

// Fault makes requests fail. The matching fields select requests; empty ones
// match everything.
type Fault struct {
	Verb      string // get, list, watch, create, update, patch, apply, delete, deletecollection
	Group     string // matched only when Resource is set
	Resource  string // plural, with "/subresource" when one is meant
	Namespace string
	Name      string
	Skip      int // matching requests that pass first
	Times     int // matching requests that fail then; 0 means 1, negative all

	LiveOnly bool // dry runs pass, and are not counted

	Kind       FaultKind
	After      bool // the request takes effect, and then the answer is lost or wrong
	Code       int
	Reason     string
	Message    string
	RetryAfter int // seconds
	Events     int // before a watch is cut

	// Hook is called for each request that the fault strikes, before it, on
	// the request's goroutine and without the cluster's lock.
	Hook func(Request)
}

type activeFault struct {
	Fault
	seen int
}

// Inject adds a fault. Faults are tried in order; the first that matches a
// request and is not used up strikes it.
func (c *Cluster) Inject(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	c.faults = append(c.faults, &activeFault{Fault: f})
}

// ClearFaults removes all faults.
func (c *Cluster) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// Request is one request of a client to a resource, as the log holds it.
// Requests for discovery and schemas are not in it.
type Request struct {
	No           int
	At           time.Time // virtual
	Verb         string    // as in Fault; apply is server-side apply
	Group        string
	Version      string
	Resource     string // plural, with "/subresource"
	Namespace    string
	Name         string
	DryRun       bool
	Code         int // 0 while it runs, and for an answer that was never sent
	User         string
	UserAgent    string
	FieldManager string
}

// Requests returns the request log, oldest first.
func (c *Cluster) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Request(nil), c.requests...)
}

// ClearRequests empties the request log.
func (c *Cluster) ClearRequests() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = nil
}

// beginRequest logs a request and finds the fault that strikes it.
func (c *Cluster) beginRequest(q *query, r *http.Request, body []byte) (int, *Fault) {
	if q.userAgent == AdminAgent {
		return 0, nil
	}
	req := c.requestOf(q, r, body)
	c.mu.Lock()
	req.No = c.logRequest(&req)
	f := c.match(req)
	c.mu.Unlock()
	if f == nil {
		return req.No, nil
	}
	if f.Hook != nil {
		f.Hook(req)
	}
	if f.Kind == FaultHook {
		return req.No, nil
	}
	return req.No, f
}

func (c *Cluster) requestOf(q *query, r *http.Request, body []byte) Request {
	req := Request{
		User: q.user.GetName(),
		Verb: q.verb, Group: q.res.group, Version: q.version, Resource: q.res.plural, Namespace: q.namespace, Name: q.name,
		DryRun: isDryRun(q, r, body), UserAgent: q.userAgent, FieldManager: q.values.Get("fieldManager"),
	}
	if q.subresource != "" {
		req.Resource += "/" + q.subresource
	}
	if q.verb == "patch" && isApply(r) {
		req.Verb = "apply"
	}
	return req
}

// logRequest gives a request its time and number, and puts it into the log.
// The lock is held.
func (c *Cluster) logRequest(req *Request) int {
	req.At = c.now
	c.requestNo++
	req.No = c.requestNo
	if len(c.requests) >= c.opts.MaxRequests {
		c.requests = append([]Request(nil), c.requests[len(c.requests)/2:]...)
	}
	c.requests = append(c.requests, *req)
	return req.No
}

// isDryRun reports whether a request is a dry run. Of a deletion clients say so
// in its body.
func isDryRun(q *query, r *http.Request, body []byte) bool {
	if len(q.values["dryRun"]) > 0 {
		return true
	}
	if q.verb != "delete" && q.verb != "deletecollection" {
		return false
	}
	o, err := readDeleteOptions(r, q, body)
	return err == nil && o.dryRun
}

func (c *Cluster) match(r Request) *Fault {
	for _, f := range c.faults {
		if !f.matches(r) {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times < 0 || f.seen <= f.Skip+f.Times) {
			out := f.Fault
			return &out
		}
	}
	return nil
}

func (f *activeFault) matches(r Request) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	verb := is(f.Verb, r.Verb) || (f.Verb == "patch" && r.Verb == "apply")
	return verb && (!f.LiveOnly || !r.DryRun) && is(f.Resource, r.Resource) && (f.Resource == "" || f.Group == "" || f.Group == r.Group) &&
		is(f.Namespace, r.Namespace) && is(f.Name, r.Name) && (f.Kind != FaultWatchCut || r.Verb == "watch")
}

func (c *Cluster) endRequest(no, code int) {
	if no == 0 { // an AdminAgent's
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.requests) - 1; i >= 0; i-- {
		if c.requests[i].No == no {
			c.requests[i].Code = code
			return
		}
	}
}

// errTimeout and errReset travel as panics from the handler to the transport,
// because no HTTP answer says them.
var (
	errTimeout = errors.New("simulated timeout")
	errReset   = errors.New("simulated connection reset")
)

// status is the code that the request log shows.
func (f *Fault) status() int {
	switch f.Kind {
	case FaultConflict:
		return http.StatusConflict
	case FaultThrottle:
		return http.StatusTooManyRequests
	case FaultDeny:
		return http.StatusForbidden
	case FaultStatus:
		return f.code()
	case FaultTimeout, FaultReset, FaultWatchCut, FaultHook:
	}
	return 0
}

func (f *Fault) code() int {
	if f.Code == 0 {
		return http.StatusInternalServerError
	}
	return f.Code
}

// strike answers the request with the fault.
func (f *Fault) strike(w http.ResponseWriter, q *query) {
	gr := schema.GroupResource{Group: q.res.group, Resource: q.res.plural}
	or := func(s, alternative string) string {
		if s == "" {
			return alternative
		}
		return s
	}
	switch f.Kind {
	case FaultTimeout:
		panic(abort{errTimeout})
	case FaultReset:
		panic(abort{errReset})
	case FaultConflict:
		writeError(w, apierrors.NewConflict(gr, q.name, errors.New(or(f.Message, "the object has been modified; please apply your changes to the latest version and try again"))))
	case FaultThrottle:
		writeError(w, apierrors.NewTooManyRequests(or(f.Message, "the server has received too many requests and has asked us to try again later"), max(1, f.RetryAfter)))
	case FaultDeny:
		webhook, text, ok := strings.Cut(f.Message, ": ")
		if !ok {
			webhook, text = "policy.simulated", f.Message
		}
		writeError(w, denied(webhook, text))
	case FaultStatus, FaultWatchCut, FaultHook:
		st := metav1.Status{Status: metav1.StatusFailure, Code: int32(f.code()), Reason: metav1.StatusReason(f.Reason), Message: or(f.Message, "simulated fault"), Details: &metav1.StatusDetails{Group: gr.Group, Kind: gr.Resource, Name: q.name, RetryAfterSeconds: int32(f.RetryAfter)}} // #nosec G115 -- status codes and seconds are small
		if st.Reason == "" {
			st.Reason = apierrors.ReasonForError(apierrors.NewGenericServerResponse(f.code(), q.verb, gr, q.name, st.Message, f.RetryAfter, true))
		}
		writeError(w, &apierrors.StatusError{ErrStatus: st})
	}
}

// abort is the panic of a request that gets no answer.
type abort struct{ err error }

// cutWriter ends a watch after some events.
type cutWriter struct {
	http.ResponseWriter
	left int
}

// Write implements io.Writer: one call is one event.
func (w *cutWriter) Write(b []byte) (int, error) {
	if w.left <= 0 {
		return 0, errReset
	}
	w.left--
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *cutWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
