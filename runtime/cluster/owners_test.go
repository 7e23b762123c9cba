package cluster

import "testing"

func TestOwners(t *testing.T) {
	made := func(kind, apiVersion, name, by, byVersion, byName string) *Object {
		meta := map[string]any{"name": name, "namespace": "shop"}
		if by != "" {
			meta["ownerReferences"] = []any{map[string]any{"apiVersion": byVersion, "kind": by, "name": byName, "uid": "u", "controller": true}}
		}
		return &Object{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": meta}}
	}
	w := Owners{}
	w.Add(made("ReplicaSet", "apps/v1", "web-1", "Deployment", "apps/v1", "web"))
	w.Add(made("ReplicaSet", "apps/v1", "relic", "", "", ""))
	for _, c := range []struct {
		pod  *Object
		want string
	}{
		{made("Pod", "v1", "web-1-a", "ReplicaSet", "apps/v1", "web-1"), "deployment.apps/web in shop"},
		{made("Pod", "v1", "relic-a", "ReplicaSet", "apps/v1", "relic"), "replicaset.apps/relic in shop"},
		{made("Pod", "v1", "other-a", "ReplicaSet", "apps/v1", "other"), "replicaset.apps/other in shop"},
		{made("Pod", "v1", "db-0", "StatefulSet", "apps/v1", "db"), "statefulset.apps/db in shop"},
		{made("Pod", "v1", "bare", "", "", ""), "pod/bare in shop"},
	} {
		if got := w.Of(c.pod).String(); got != c.want {
			t.Errorf("%s is of %s, want %s", c.pod.GetName(), got, c.want)
		}
	}
}
