package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"k8s.io/client-go/rest"
)

// ReadOnlyError is the answer of the read-only guard to a request that would
// change the cluster.
type ReadOnlyError struct{ Method, Path string }

// Error names the request.
func (e *ReadOnlyError) Error() string {
	return fmt.Sprintf("%s %s: refused: this client may only read (GET, HEAD, OPTIONS, dry-run and access reviews); only the engine writes", e.Method, e.Path)
}

// Is makes a ReadOnlyError match ErrDenied.
func (e *ReadOnlyError) Is(target error) bool { return target == ErrDenied }

// readOnly refuses what is not a read.
type readOnly struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g readOnly) RoundTrip(in *http.Request) (*http.Response, error) {
	req := in.Clone(in.Context())
	if isRead(req.Method) && !opensTunnel(req) || dryRun(req) || accessReview(req) {
		return g.next.RoundTrip(req)
	}
	if req.Body != nil {
		if err := req.Body.Close(); err != nil {
			return nil, err
		}
	}
	return nil, &ReadOnlyError{Method: req.Method, Path: req.URL.Path}
}

// opensTunnel reports whether a GET gives more than a read: exec, attach and
// proxy lead to a connection through which anything can be done.
func opensTunnel(req *http.Request) bool {
	p := req.URL.Path
	return strings.HasSuffix(p, "/exec") || strings.HasSuffix(p, "/attach") || strings.Contains(p, "/proxy/")
}

// dryRun reports whether the API server will keep nothing of the request. Of a
// DELETE with a body it reads the body (DeleteOptions) and not the query
// (k8s.io/apiserver pkg/endpoints/handlers/delete.go, DeleteResource); the body is
// read here, too, and put back.
func dryRun(req *http.Request) bool {
	if req.Method != http.MethodDelete || req.Body == nil || req.Body == http.NoBody {
		return isDryRun(req)
	}
	raw, err := io.ReadAll(io.LimitReader(req.Body, 64<<10))
	if cerr := req.Body.Close(); err != nil || cerr != nil {
		return false
	}
	req.Body = io.NopCloser(bytes.NewReader(raw))
	if len(raw) == 0 {
		return isDryRun(req)
	}
	var o struct {
		DryRun []string `json:"dryRun"`
	}
	return json.Unmarshal(raw, &o) == nil && len(o.DryRun) == 1 && o.DryRun[0] == "All"
}

// accessReview reports whether the request asks the authorizer about ourselves.
// It is made with POST and stores nothing.
func accessReview(req *http.Request) bool {
	return req.Method == http.MethodPost && (strings.HasSuffix(req.URL.Path, "/selfsubjectaccessreviews") ||
		strings.HasSuffix(req.URL.Path, "/selfsubjectrulesreviews"))
}

// guarded adds the read-only guard outside everything that rc wraps already.
func guarded(rc *rest.Config) *rest.Config {
	out := rest.CopyConfig(rc)
	out.Wrap(func(rt http.RoundTripper) http.RoundTripper { return readOnly{next: rt} })
	return out
}
