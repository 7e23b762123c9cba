package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RequestError is a failed request: which object, which sentinel of this
// package it is, and what the server said. errors.Is matches the sentinel and
// whatever lies beneath.
type RequestError struct {
	Subject string // "deployment.apps/web in shop", or what was asked
	Kind    error  // a sentinel of this package
	Message string // the server's words, or the connection's
	Code    int    // HTTP status; 0 if there was no answer
	cause   error
}

// Error is object first, then the sentinel's word, then the server's.
func (e *RequestError) Error() string {
	s := e.Subject + ": " + e.Kind.Error()
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Unwrap gives the sentinel and the cause.
func (e *RequestError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.cause}
}

// request says what kind of request failed, for mapError.
type request struct {
	subject  string
	ref      Ref
	server   string
	mutation bool // it may have changed something
	eviction bool
	x        *exchange
	caller   context.Context // the caller's own, without our per-request limit
}

// mapError turns what client-go returns into the conditions of this package.
func (q request) mapError(err error) error {
	if err == nil {
		return nil
	}
	var ro *ReadOnlyError
	if errors.As(err, &ro) {
		return fmt.Errorf("%s: %w", q.subject, ro)
	}
	var st apierrors.APIStatus
	if errors.As(err, &st) {
		s := st.Status()
		return q.mapStatus(err, &s)
	}
	return q.mapNoAnswer(err)
}

// mapNoAnswer is for requests without an answer that could be read.
func (q request) mapNoAnswer(err error) error {
	fail := func(kind error, msg string) error {
		return &RequestError{Subject: q.subject, Kind: kind, Message: msg, cause: err}
	}
	never := q.x != nil && q.x.neverSent(err)
	switch {
	case q.mutation && !never:
		return fail(ErrUnknown, "it was sent and not answered: "+rootText(err))
	case q.caller != nil && q.caller.Err() != nil:
		return fmt.Errorf("%s: %w", q.subject, context.Cause(q.caller))
	default:
		return fail(ErrUnreachable, q.server+": "+rootText(err))
	}
}

// mapStatus is for requests that the server answered with a Status.
func (q request) mapStatus(err error, s *metav1.Status) error {
	fail := func(kind error) error {
		return &RequestError{Subject: q.subject, Kind: kind, Message: s.Message, Code: int(s.Code), cause: err}
	}
	switch {
	case s.Code == http.StatusNotFound && isNoResource(s):
		return fail(ErrNoKind)
	case s.Code == http.StatusNotFound:
		return fail(ErrNotFound)
	case s.Reason == metav1.StatusReasonAlreadyExists:
		return fail(ErrExists)
	case s.Code == http.StatusConflict:
		if fields := fieldConflicts(s); len(fields) > 0 {
			return &ConflictError{Ref: q.ref, Fields: fields}
		}
		return fail(ErrConflict)
	case s.Code == http.StatusUnauthorized, s.Code == http.StatusForbidden:
		return fail(ErrDenied)
	case q.eviction && isDisruption(s):
		return fail(ErrDisruption)
	case s.Code == http.StatusTooManyRequests:
		return fail(ErrThrottled)
	case s.Code >= 500 && refusedInAdmission(s):
		return fail(ErrDenied)
	case s.Code >= 500 && q.mutation:
		return fail(ErrUnknown)
	case s.Code >= 500:
		return fail(ErrUnreachable)
	case s.Code == http.StatusMethodNotAllowed, s.Code >= 400:
		return fail(ErrInvalid)
	default:
		return fmt.Errorf("%s: %w", q.subject, err)
	}
}

// isNoResource tells a path that the server does not serve from a missing
// object: the former has no details of a kind.
func isNoResource(s *metav1.Status) bool {
	return s.Details == nil || s.Details.Kind == "" && s.Details.Name == "" ||
		strings.Contains(s.Message, "could not find the requested resource")
}

// refusedInAdmission: a webhook that must answer and could not be called is a
// 500, but admission comes before storage: nothing was changed.
// (k8s.io/apiserver/pkg/admission/plugin/webhook: "failed calling webhook")
func refusedInAdmission(s *metav1.Status) bool {
	return strings.Contains(s.Message, "failed calling webhook")
}

// isDisruption: an eviction refused for a budget is a 429 with the cause
// DisruptionBudget; a pod under two budgets is a 500 with a fixed text
// (k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go).
func isDisruption(s *metav1.Status) bool {
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if c.Type == "DisruptionBudget" {
				return true
			}
		}
	}
	return strings.Contains(s.Message, "disruption budget") || strings.Contains(s.Message, "more than one PodDisruptionBudget")
}

var managerInCause = regexp.MustCompile(`conflict with "([^"]*)"`)

// fieldConflicts reads the causes of a server-side apply conflict. Their
// message is `conflict with "manager" using apps/v1`
// (k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go).
func fieldConflicts(s *metav1.Status) []FieldConflict {
	if s.Details == nil {
		return nil
	}
	var out []FieldConflict
	for _, c := range s.Details.Causes {
		if c.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		f := FieldConflict{Field: c.Field, Message: c.Message}
		if m := managerInCause.FindStringSubmatch(c.Message); m != nil {
			f.Manager = m[1]
		}
		out = append(out, f)
	}
	return out
}

// rootText drops the `Get "https://…":` that net/http puts in front: the
// subject says what was asked, and the server is named already.
func rootText(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}
