package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rutter.dev/rutter/runtime/lock"
)

// fault is one way in which a request goes wrong.
type fault struct {
	name string
	// after: the request takes effect, and then its answer is lost or wrong.
	after bool
	// writes: for requests that change something only.
	writes bool
	// silent is how long the server says nothing before the client gives up.
	silent time.Duration
	// answer makes what the client gets; resp is the server's answer if after.
	answer func(r *http.Request, resp *http.Response) (*http.Response, error)
}

// asleep is longer than a lock lives without being renewed: nobody else got
// through meanwhile either, as where a laptop was asleep.
const asleep = 2 * lock.Duration

// faults are all of them, in the order in which cases are numbered. Codes and
// reasons are those of k8s.io/apimachinery/pkg/api/errors.
func faults() []fault {
	out := []fault{
		{name: "timeout", answer: timedOut},
		{name: "stall", silent: asleep, answer: timedOut},
		{name: "reset", answer: reset},
		status(http.StatusInternalServerError, "InternalError", "etcdserver: request timed out", 0),
		status(http.StatusServiceUnavailable, "ServiceUnavailable", "the server is currently unable to handle the request", 1),
		status(http.StatusUnauthorized, "Unauthorized", "Unauthorized", 0),
		status(http.StatusForbidden, "Forbidden", "forbidden: user cannot do this", 0),
		status(http.StatusNotFound, "NotFound", "the server could not find the requested resource", 0),
		status(http.StatusConflict, "Conflict", "the object has been modified; please apply your changes to the latest version and try again", 0),
		status(http.StatusGone, "Expired", "too old resource version", 0),
		status(http.StatusTooManyRequests, "TooManyRequests", "too many requests, please try again later", 1),
		{name: "truncated", after: true, answer: truncated},
	}
	deny := status(http.StatusForbidden, "Forbidden", `admission webhook "policy.example.com" denied the request: not today`, 0)
	deny.name, deny.writes = "deny", true
	out = append(out, deny)
	for _, f := range out {
		switch f.name {
		case "timeout", "stall", "reset", "500", "503":
			f.name, f.after, f.writes = f.name+"-after", true, true
			out = append(out, f)
		}
	}
	return out
}

// status answers with a Status, as the API server does.
func status(code int, reason, message string, retryAfter int) fault {
	return fault{name: strconv.Itoa(code), answer: func(r *http.Request, _ *http.Response) (*http.Response, error) {
		st := map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": message, "reason": reason, "code": code}
		h := http.Header{"Content-Type": {"application/json"}}
		if retryAfter > 0 {
			st["details"] = map[string]any{"retryAfterSeconds": retryAfter}
			h.Set("Retry-After", strconv.Itoa(retryAfter))
		}
		b, err := json.Marshal(st)
		if err != nil {
			return nil, err
		}
		return &http.Response{
			Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h, Body: io.NopCloser(bytes.NewReader(b)), ContentLength: int64(len(b)), Request: r,
		}, nil
	}}
}

func timedOut(*http.Request, *http.Response) (*http.Response, error) {
	return nil, &net.OpError{Op: "read", Net: "tcp", Err: deadline{}}
}

func reset(*http.Request, *http.Response) (*http.Response, error) {
	return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
}

// truncated breaks the connection in the middle of the answer's body.
func truncated(_ *http.Request, resp *http.Response) (*http.Response, error) {
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), broken{}))
	return resp, nil
}

type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// deadline is the error of a connection whose deadline has passed.
type deadline struct{}

// Error implements error.
func (deadline) Error() string { return "i/o timeout" }

// Timeout implements net.Error.
func (deadline) Timeout() bool { return true }

// Temporary implements net.Error.
func (deadline) Temporary() bool { return true }

// Is makes it context.DeadlineExceeded, as the error of package net is.
func (deadline) Is(target error) bool { return target == context.DeadlineExceeded }

// reviews are POSTs that change nothing.
func review(path string) bool {
	return strings.Contains(path, "/apis/authorization.k8s.io/") || strings.Contains(path, "/apis/authentication.k8s.io/")
}
