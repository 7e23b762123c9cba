package rbac

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// bootstrapText lists the roles and bindings with which a Kubernetes 1.36
// cluster is born, as its API answers them:
//
//	role [NAMESPACE/]NAME LABELS AGGREGATED-LABELS
//	  VERBS GROUPS RESOURCES NAMES URLS
//	bind [NAMESPACE/]NAME ROLE-KIND/ROLE SUBJECTS
//
// where "-" is an empty list and "" the core group.
//
//go:embed bootstrap.txt
var bootstrapText string

// Bootstrap makes the roles and bindings with which every cluster is born,
// without uid, resourceVersion and creation time.
func Bootstrap() ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for line := range strings.Lines(bootstrapText) {
		f := strings.Fields(line)
		switch f[0] {
		case "role":
			out = append(out, bornRole(f[1], f[2], f[3]))
		case "bind":
			out = append(out, bornBinding(f[1], f[2], f[3]))
		default:
			last := out[len(out)-1].Object
			rules, _ := last["rules"].([]any)
			last["rules"] = append(rules, bornRule(f))
		}
	}
	return out, aggregateAll(out)
}

func born(kind, name string) *unstructured.Unstructured {
	meta := map[string]any{
		"annotations": map[string]any{"rbac.authorization.kubernetes.io/autoupdate": "true"},
	}
	if ns, rest, ok := strings.Cut(name, "/"); ok {
		meta["namespace"], name = ns, rest
	} else {
		kind = "Cluster" + kind
	}
	meta["name"] = name
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": Group + "/v1", "kind": kind, "metadata": meta}}
}

func bornRole(name, labels, aggregated string) *unstructured.Unstructured {
	u := born("Role", name)
	l := pairs(labels)
	l["kubernetes.io/bootstrapping"] = "rbac-defaults"
	u.Object["metadata"].(map[string]any)["labels"] = l
	u.Object["rules"] = nil
	if sel := pairs(aggregated); len(sel) > 0 {
		u.Object["aggregationRule"] = map[string]any{"clusterRoleSelectors": []any{map[string]any{"matchLabels": sel}}}
	}
	return u
}

func bornRule(f []string) map[string]any {
	rule := map[string]any{}
	for i, name := range []string{"verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs"} {
		if list := words(f[i]); list != nil {
			rule[name] = list
		}
	}
	return rule
}

func bornBinding(name, role, subjects string) *unstructured.Unstructured {
	u := born("RoleBinding", name)
	u.Object["metadata"].(map[string]any)["labels"] = map[string]any{"kubernetes.io/bootstrapping": "rbac-defaults"}
	kind, ref, _ := strings.Cut(role, "/")
	u.Object["roleRef"] = map[string]any{"apiGroup": Group, "kind": kind, "name": ref}
	var list []any
	for _, s := range words(subjects) {
		kind, name, _ := strings.Cut(s.(string), "=")
		m := map[string]any{"kind": kind, "name": name}
		if ns, account, ok := strings.Cut(name, "/"); ok {
			m["namespace"], m["name"] = ns, account
		} else {
			m["apiGroup"] = Group
		}
		list = append(list, m)
	}
	if list != nil {
		u.Object["subjects"] = list
	}
	return u
}

func words(s string) []any {
	if s == "-" {
		return nil
	}
	var out []any
	for w := range strings.SplitSeq(s, ",") {
		out = append(out, strings.Trim(w, `"`))
	}
	return out
}

func pairs(s string) map[string]any {
	out := map[string]any{}
	for _, w := range words(s) {
		k, v, _ := strings.Cut(w.(string), "=")
		out[k] = v
	}
	return out
}

// aggregateAll fills in the rules of aggregated roles until nothing changes:
// one may take in another.
func aggregateAll(all []*unstructured.Unstructured) error {
	var roles []*unstructured.Unstructured
	for _, u := range all {
		if u.GetKind() == "ClusterRole" {
			roles = append(roles, u)
		}
	}
	slices.SortFunc(roles, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	for again := true; again; {
		again = false
		for _, u := range roles {
			rules, changed, err := Aggregate(u, roles)
			if err != nil {
				return err
			}
			if !changed {
				continue
			}
			again = true
			list := make([]any, len(rules))
			for i := range rules {
				if list[i], err = runtime.DefaultUnstructuredConverter.ToUnstructured(&rules[i]); err != nil {
					return fmt.Errorf("ClusterRole %s: %w", u.GetName(), err)
				}
			}
			u.Object["rules"] = list
		}
	}
	return nil
}
