//go:build e2e

package e2e

import (
	"testing"

	"rutter.dev/rutter/tests/e2e/plane"
)

// prune applies two versions of a small manifest by the same inventory: the
// second lacks two objects of the first, and only these are deleted. One that
// somebody made beside them stays.
func prune(t *testing.T, p *plane.Plane) {
	run := func(args ...string) result {
		return rutter(t, t.TempDir(), p.Kubeconfig(), append([]string{"run", "tests/e2e/testdata/prune.star", "--yes"}, args...)...)
	}
	names := func() string {
		return kubectl(t, p, "-n", "prune-me", "get", "configmap,service", "-l", "part=prune-test", "-o", "name").want(t, 0).out
	}
	defer func() { kubectl(t, p, "delete", "namespace", "prune-me", "--ignore-not-found").want(t, 0) }()
	run("--set", "version=1").want(t, 0)
	if got := names(); got != "configmap/both\nconfigmap/first\nservice/first\n" {
		t.Fatalf("after the first version there are\n%s", got)
	}
	apply(t, p, `
apiVersion: v1
kind: ConfigMap
metadata: {name: by-hand, namespace: prune-me, labels: {part: prune-test}}
`)
	both := object(t, p, "", "v1", "ConfigMap", "prune-me", "both").GetUID()
	mark := auditMark(t, p)
	run("--set", "version=2").want(t, 0)
	if got := names(); got != "configmap/both\nconfigmap/by-hand\nconfigmap/second\n" {
		t.Errorf("after the second version there are\n%s", got)
	}
	if object(t, p, "", "v1", "ConfigMap", "prune-me", "both").GetUID() != both {
		t.Error("an object of both versions was made anew")
	}
	deleted := map[string]int{}
	for _, c := range changes(t, p, mark) {
		if c.verb == "delete" {
			deleted[c.target()]++
		}
	}
	if len(deleted) != 2 || deleted["configmaps prune-me/first"] != 1 || deleted["services prune-me/first"] != 1 {
		t.Errorf("deleted was %v", deleted)
	}
}
