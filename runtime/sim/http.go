package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// maxBody is the largest request body that is read, the API server's own limit.
const maxBody = 3 << 20

// Handler is the cluster's HTTP interface.
func (c *Cluster) Handler() http.Handler { return http.HandlerFunc(c.serveHTTP) }

func (c *Cluster) serveHTTP(w http.ResponseWriter, r *http.Request) {
	if c.isDown.Load() && !strings.HasPrefix(r.URL.Path, ControlPath) {
		panic(abort{errRefused})
	}
	t, ok := parsePath(r.URL.Path)
	who, err := c.admitted(r, t, ok)
	if err != nil {
		c.refuse(w, r, t, ok, who, err)
		return
	}
	if !ok && strings.HasPrefix(r.URL.Path, ControlPath) {
		c.serveControl(w, r, who)
		return
	}
	if !ok {
		c.serveMeta(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	if len(body) > maxBody {
		writeError(w, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody)))
		return
	}
	c.mu.Lock()
	q, err := c.parse(r, t)
	served := c.reg.groupServed(t.group)
	c.mu.Unlock()
	if err != nil && !served {
		http.NotFound(w, r) // nothing of the API server's is there to answer
		return
	}
	if err != nil {
		writeError(w, err)
		return
	}
	q.user = who
	c.serveResource(w, r, q, body)
}

// serveResource answers a request to a resource, through the faults that
// match it.
func (c *Cluster) serveResource(w http.ResponseWriter, r *http.Request, q *query, body []byte) {
	req, fault := c.beginRequest(q, r, body)
	if fault != nil && !fault.After && fault.Kind != FaultWatchCut {
		c.endRequest(req, fault.status())
		fault.strike(w, q)
		return
	}
	if q.verb == "watch" {
		if err := c.watchRequest(w, r, q, fault); err != nil {
			c.endRequest(req, statusCode(err))
			writeError(w, err)
			return
		}
		c.endRequest(req, http.StatusOK)
		return
	}
	if q.connects() && fault == nil {
		c.endRequest(req, c.connect(w, r, q, body))
		return
	}
	warnings := q.deprecated()
	ans, err := c.answer(r, q, body, &warnings)
	if fault != nil {
		c.endRequest(req, fault.status())
		fault.strike(w, q)
		return
	}
	for _, text := range warnings {
		w.Header().Add("Warning", fmt.Sprintf("299 - %s", strconv.Quote(text)))
	}
	if err != nil {
		c.endRequest(req, statusCode(err))
		writeError(w, err)
		return
	}
	c.endRequest(req, ans.code)
	if q.yaml && ans.contentType == "application/json" {
		if b, err := yaml.JSONToYAML(ans.data); err == nil {
			ans.data, ans.contentType = b, "application/yaml"
		}
	}
	w.Header().Set("Content-Type", ans.contentType)
	w.WriteHeader(ans.code)
	if b, ok := w.(*buffered); ok && r.Method != http.MethodHead {
		b.give(ans.data)
	} else if r.Method != http.MethodHead {
		_, err = w.Write(ans.data)
		_ = err // the client is gone: there is nobody left to tell
	}
}

// deprecated are the warnings that every request to an old API gets.
func (q *query) deprecated() []string {
	if q.res.group == "" && q.res.plural == "endpoints" {
		return []string{"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
	}
	if q.res.crd == nil {
		return nil
	}
	v := q.res.crd.versions[q.version]
	switch {
	case v == nil || !v.def.Deprecated:
		return nil
	case v.def.DeprecationWarning != nil:
		return []string{*v.def.DeprecationWarning}
	}
	return []string{fmt.Sprintf("%s/%s %s is deprecated", q.res.group, q.version, q.res.kind)}
}

func (c *Cluster) watchRequest(w http.ResponseWriter, r *http.Request, q *query, fault *Fault) error {
	c.mu.Lock()
	err := c.reachable(q)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if fault != nil && fault.Kind == FaultWatchCut {
		return c.serveWatch(&cutWriter{ResponseWriter: w, left: fault.Events}, r, q)
	}
	return c.serveWatch(w, r, q)
}

// reply is a whole answer.
type reply struct {
	code        int
	contentType string
	data        []byte
}

func jsonReply(code int, v any) (reply, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return reply{}, apierrors.NewInternalError(err)
	}
	return reply{code, "application/json", append(b, '\n')}, nil
}

// answer runs a request that is not a watch. Writes settle the controllers
// before they are answered.
func (c *Cluster) answer(r *http.Request, q *query, body []byte, warnings *[]string) (reply, error) {
	if !q.res.createOnly {
		c.anticipate(q.res.gr(), q.namespace, q.name)
	}
	if q.verb == "list" {
		c.mu.Lock()
		l, err := listing{}, c.reachable(q)
		if err == nil {
			l, err = c.list(q)
		}
		c.mu.Unlock()
		if err != nil {
			return reply{}, err
		}
		b, err := l.write(c, q) // off the lock: entries never change
		if err != nil {
			return reply{}, apierrors.NewInternalError(err)
		}
		return reply{http.StatusOK, "application/json", b}, nil
	}
	if q.verb != "get" {
		c.writing.Lock()
		defer c.writing.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.reachable(q); err != nil {
		return reply{}, err
	}
	if q.verb == "get" && q.list.ResourceVersion != "" && q.list.ResourceVersion != "0" {
		if _, err := c.reached(q.list.ResourceVersion); err != nil {
			return reply{}, err
		}
	}
	if q.verb == "get" && q.subresource == "" {
		e := c.st.get(objectKey{q.res.gr(), q.namespace, q.name})
		if e == nil {
			return reply{}, apierrors.NewNotFound(q.res.gr(), q.name)
		}
		b, err := q.render(c, e)
		if err != nil {
			return reply{}, apierrors.NewInternalError(err)
		}
		return reply{http.StatusOK, "application/json", b}, nil
	}
	ans, err := c.handle(r, q, body, warnings)
	if q.verb != "get" {
		c.settle()
	}
	if broken := c.answering(); broken != nil {
		return reply{}, broken
	}
	return ans, err
}

// writeError answers an error as the API server does, with a Status.
func writeError(w http.ResponseWriter, err error) {
	st := statusOf(err)
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	b, merr := json.Marshal(st)
	if merr != nil {
		http.Error(w, merr.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(st.Code))
	_, werr := w.Write(append(b, '\n'))
	_ = werr // the client is gone: there is nobody left to tell
}

func statusOf(err error) metav1.Status {
	var api apierrors.APIStatus
	if !errors.As(err, &api) { // as the server answers what is no API error
		api = &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}}
	}
	st := api.Status()
	st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	if st.Code == 0 {
		st.Code = http.StatusInternalServerError
	}
	return st
}

func statusCode(err error) int { return int(statusOf(err).Code) }

// mediaType is a Content-Type without its parameters.
func mediaType(header string) string {
	t, _, _ := strings.Cut(header, ";")
	return strings.TrimSpace(t)
}
