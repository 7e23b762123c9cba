package effect

import (
	"fmt"

	"rutter.dev/rutter/runtime/cluster"
)

// IsMeshCA reports whether a Secret of this name holds the mesh's own CA
// (istiod's, or one that was plugged in). Bringing an older one back would
// break every certificate since.
func IsMeshCA(name string) bool { return name == "cacerts" || name == "istio-ca-secret" }

// Irreversible says, before an effect is made, what a rollback will not undo of
// it; "" where it undoes all.
func Irreversible(e *Effect) string {
	switch {
	case e.HoldsSecret() && IsMeshCA(e.Ref.Name):
		return "a rollback never changes the mesh's CA"
	case e.Verb == Delete && e.Ref.Kind == "Namespace" && e.Ref.Group == "":
		return "a rollback makes it again, but not what is in it"
	case e.Ref.Kind == "CustomResourceDefinition" && e.Before != nil && e.After != nil:
		if was, now := storage(e.Before), storage(e.After); was != now && now != "" {
			return fmt.Sprintf("once objects are stored in its version %s, a rollback leaves it", now)
		}
	}
	return ""
}

// storage is the version in which a CRD's objects are stored.
func storage(crd *cluster.Object) string {
	spec, ok := crd.Object["spec"].(map[string]any)
	if !ok {
		return ""
	}
	versions, ok := spec["versions"].([]any)
	if !ok {
		return ""
	}
	for _, v := range versions {
		if m, ok := v.(map[string]any); ok && m["storage"] == true {
			name, _ := m["name"].(string)
			return name
		}
	}
	return ""
}
