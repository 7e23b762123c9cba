package sim

import (
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// DenyRule makes access reviews answer no. Empty fields match everything. The
// requests themselves are not refused: use a Fault for that.
type DenyRule struct {
	Verb      string
	Group     string
	Resource  string
	Namespace string
	Name      string
	Reason    string
}

// Deny adds a rule that access reviews answer by.
func (c *Cluster) Deny(rule DenyRule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denials = append(c.denials, rule)
}

// review answers the kinds that are created only to be answered.
func (c *Cluster) review(r *http.Request, q *query, body []byte) (reply, error) {
	in, err := decodeBody(r, q, body)
	if err != nil {
		return reply{}, err
	}
	switch q.res.kind {
	case "SelfSubjectRulesReview":
		all := []any{"*"}
		in.Object["status"] = map[string]any{
			"incomplete":       false,
			"resourceRules":    []any{map[string]any{"verbs": all, "apiGroups": all, "resources": all}},
			"nonResourceRules": []any{map[string]any{"verbs": all, "nonResourceURLs": all}},
		}
	case "TokenReview":
		in.Object["status"] = map[string]any{"authenticated": true, "user": map[string]any{"username": "simulated"}}
	case "SelfSubjectReview":
		in.Object["status"] = map[string]any{"userInfo": map[string]any{"username": "simulated", "groups": []any{"system:masters", "system:authenticated"}}}
	default:
		in.Object["status"] = c.accessStatus(in)
	}
	return jsonReply(http.StatusCreated, in.Object)
}

func (c *Cluster) accessStatus(in *unstructured.Unstructured) map[string]any {
	get := func(f string) string {
		s, _, _ := unstructured.NestedString(in.Object, "spec", "resourceAttributes", f)
		return s
	}
	match := func(want, got string) bool { return want == "" || want == got }
	i := slices.IndexFunc(c.denials, func(d DenyRule) bool {
		return match(d.Verb, get("verb")) && match(d.Group, get("group")) && match(d.Resource, get("resource")) &&
			match(d.Namespace, get("namespace")) && match(d.Name, get("name"))
	})
	if i < 0 {
		return map[string]any{"allowed": true}
	}
	return map[string]any{"allowed": false, "reason": c.denials[i].Reason}
}
