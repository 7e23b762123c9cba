package cluster

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// The API server's words for a right that its user lacks: of its authorizer
// (k8s.io/apiserver pkg/endpoints/handlers/responsewriters forbiddenMessage),
// and of RBAC's own objects, which nobody may fill with more than they hold
// (k8s.io/kubernetes pkg/registry/rbac/validation ConfirmNoEscalation).
var (
	forbidden  = regexp.MustCompile(`^(?:\S+(?: "([^"]*)")? is forbidden: )?User "[^"]*" cannot (\S+) (?:resource "([^"]+)" in API group "([^"]*)" (?:in the namespace "([^"]*)"|at the cluster scope)|path "([^"]*)")`)
	escalation = regexp.MustCompile(`^(\S+) "([^"]*)" is forbidden: user "[^"]*".* is attempting to grant RBAC permissions not currently held`)
)

// MissingRight says in words for lack of which right the API server refused a
// request: "patch deployments.apps web in shop"; "" for any other error, a refusal
// by admission included, which is a 403 as well.
func MissingRight(err error) string {
	var st apierrors.APIStatus // of this package's client, or of a library's own
	if !errors.As(err, &st) || st.Status().Code != http.StatusForbidden {
		return ""
	}
	said := st.Status().Message
	if m := forbidden.FindStringSubmatch(said); m != nil {
		if path := m[6]; path != "" {
			return m[2] + " " + path
		}
		resource, sub, _ := strings.Cut(m[3], "/")
		return Access{Verb: m[2], Group: m[4], Resource: resource, Subresource: sub, Namespace: m[5], Name: m[1]}.String()
	}
	if m := escalation.FindStringSubmatch(said); m != nil {
		if strings.Contains(m[1], "bindings") {
			return "bind the role that " + m[1] + " " + m[2] + " names"
		}
		return "escalate " + m[1] + " " + m[2]
	}
	return ""
}

// RightsAdvice is what to do about a missing right.
const RightsAdvice = "rutter rbac RUNBOOK prints the roles that a run needs"
