//go:build e2e

package e2e

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/plane"
)

// rutter is killed as the control plane is being applied, and again in the
// middle of the rollout; then the API server is, while workloads restart. Each
// time the run is resumed, in the end to its end. The API server's record has
// each change once, and every workload was restarted once.
func TestKilledAndResumed(t *testing.T) {
	parallel(t, 220*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: besides(2)})
	bringMesh(t, p, mesh.Spec{Workloads: 20, Namespaces: 4, Seed: 2, NoSidecar: 1, OnDelete: 1})
	before, had, mark := workloads(t, p), proxies(t, p), auditMark(t, p)
	state, log := t.TempDir(), &record{t: t, p: p, mark: mark}

	kill(t, rutterCommand(t.Context(), state, p.Kubeconfig(), inPlace("--set", "then=4")...), "five changes are made", func(context.Context) (bool, error) {
		return len(made(log.read())) >= 5, nil
	})
	if n := restarts(made(log.read())); n > 0 {
		t.Fatalf("it was killed too late: %d workloads are restarted", n)
	}
	kill(t, rutterCommand(t.Context(), state, p.Kubeconfig(), "resume", "--yes"), "four workloads are restarted", func(context.Context) (bool, error) {
		return restarts(made(log.read())) >= 4, nil
	})
	killedWhileRestarting(t, p, rutterCommand(t.Context(), state, p.Kubeconfig(), "resume", "--yes", "-o", "json"))
	resumedFrom := len(made(log.read()))
	rutter(t, state, p.Kubeconfig(), "resume", "--yes").want(t, 0)

	all := changes(t, p, mark)
	if len(all) == resumedFrom {
		t.Error("nothing was left to do when it was killed")
	}
	once(t, all)
	after := workloads(t, p)
	for name, w := range before {
		switch {
		case !w.sidecar():
			untouched(t, w, after[name])
		case onDelete(t, p, w):
			evictedOnce(t, w, after[name])
		default:
			restartedOnce(t, w, after[name])
		}
	}
	newControlPlane(t, p)
	has := proxies(t, p)
	if i := slices.IndexFunc(has, func(image string) bool { return image != newProxy }); i >= 0 || len(has) != len(had) {
		t.Errorf("after the upgrade: %d proxies, before it %d; one of them %v", len(has), len(had), has)
	}
	restartedAtMostOnce(t, p)
}

// kill runs rutter until a condition holds, and kills it then as kill -9 does.
func kill(t *testing.T, cmd *exec.Cmd, what string, when func(context.Context) (bool, error)) {
	t.Helper()
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	until(t, what, func(ctx context.Context) (bool, error) {
		select {
		case err := <-ended:
			t.Fatalf("rutter ended (%v) before %s:\n%s", err, what, said.String())
		default:
		}
		return when(ctx)
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("rutter was not killed, but ended: %v\n%s", cmd.ProcessState, said.String())
	}
}

// made are those of the changes that were made.
func made(all []change) []change {
	return slices.DeleteFunc(slices.Clone(all), func(c change) bool { return !c.taken() })
}

// restarts counts the workloads outside the control plane that were patched.
func restarts(all []change) (n int) {
	for _, c := range all {
		if c.verb == "patch" && c.namespace != "" && c.namespace != mesh.SystemNamespace {
			n++
		}
	}
	return n
}

// once fails the test when a change was made twice: the same request, or a
// second apply or restart of one object.
func once(t *testing.T, all []change) {
	t.Helper()
	same, of := map[string]int{}, map[string]int{}
	for _, c := range all {
		if !c.taken() {
			continue
		}
		if same[c.what()+c.body]++; same[c.what()+c.body] == 2 {
			t.Errorf("%s was asked for twice, in the same words:\n%s", c.what(), c.body)
		}
		kind := c.kind()
		if of[kind+c.what()]++; of[kind+c.what()] == 2 {
			t.Errorf("%s: a second %s", c.what(), kind)
		}
	}
	if len(of) < 10 {
		t.Errorf("the log knows of %d changes only", len(of))
	}
}
