package cluster

import (
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Ready judges an object by kstatus, as `kubectl wait` users and GitOps tools
// do: ready, failed for good (waiting longer will not help), or neither, with
// the reason in words. A nil object is neither. Objects whose kind has no
// notion of readiness are ready. On top of kstatus: a Deployment that is paused
// in the middle of a rollout, a pod in a crash loop or without its image, and
// Gateway API objects without their condition.
func Ready(o *Object) (ready, failed bool, why string) {
	if o == nil {
		return false, false, "does not exist"
	}
	if why, bad := podTrouble(o); bad {
		return false, true, why
	}
	res, err := status.Compute(o)
	if err != nil {
		return false, false, "status cannot be judged: " + err.Error()
	}
	switch res.Status {
	case status.CurrentStatus:
		if why, ok := extraConditions(o); !ok {
			return false, false, why
		}
		return true, false, res.Message
	case status.FailedStatus:
		return false, true, res.Message
	default:
		if paused, _, err := unstructured.NestedBool(o.Object, "spec", "paused"); err == nil && paused && o.GetKind() == "Deployment" {
			return false, false, res.Message + " (paused: spec.paused is true)"
		}
		return false, false, res.Message
	}
}

// podTrouble finds a container that does not start: kstatus calls such a pod
// in progress, but it will not become ready by waiting.
func podTrouble(o *Object) (string, bool) {
	if o.GetKind() != "Pod" || o.GroupVersionKind().Group != "" {
		return "", false
	}
	for _, list := range []string{"initContainerStatuses", "containerStatuses"} {
		cs, _, err := unstructured.NestedSlice(o.Object, "status", list)
		if err != nil {
			continue // not a list: kstatus says so
		}
		for _, c := range cs {
			m, ok := c.(map[string]any)
			if !ok {
				continue
			}
			reason, _, err := unstructured.NestedString(m, "state", "waiting", "reason")
			if err != nil {
				continue
			}
			switch reason {
			case "CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError":
				return fmt.Sprintf("container %v: %s", m["name"], reason), true
			}
		}
	}
	return "", false
}

// extraConditions knows conditions that kstatus does not look at. Gateway API:
// a Gateway works when it is Programmed (gateway.networking.k8s.io GEP-1364).
func extraConditions(o *Object) (string, bool) {
	gvk := o.GroupVersionKind()
	if gvk.Group != "gateway.networking.k8s.io" || gvk.Kind != "Gateway" {
		return "", true
	}
	if c, ok := Condition(o, "Programmed"); ok && c.Status != "True" {
		return "not programmed: " + c.Message, false
	}
	return "", true
}

// StatusCondition is one entry of status.conditions.
type StatusCondition struct{ Type, Status, Reason, Message string }

// Condition returns the named condition of an object.
func Condition(o *Object, name string) (StatusCondition, bool) {
	cs, _, err := unstructured.NestedFieldNoCopy(o.Object, "status", "conditions")
	if err != nil {
		return StatusCondition{}, false
	}
	list, _ := cs.([]any)
	for _, c := range list {
		m, ok := c.(map[string]any)
		if !ok || m["type"] != name {
			continue
		}
		text := func(k string) string {
			s, ok := m[k].(string)
			if !ok {
				return ""
			}
			return s
		}
		return StatusCondition{Type: name, Status: text("status"), Reason: text("reason"), Message: text("message")}, true
	}
	return StatusCondition{}, false
}
