//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/tests/e2e/plane"
)

// tools are the programs that cases run.
type tools struct {
	plane           plane.Binaries
	rutter, kubectl string
	root            string
}

var built tools

func TestMain(m *testing.M) {
	if dir := os.Getenv(leaveIn); dir != "" {
		os.Exit(leavePlane(dir))
	}
	flag.Parse()
	err := flag.Set("test.parallel", "64") // how many run at once, turns says
	if err == nil {
		err = build(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// isBuilt says that make has just built everything: to find that out again
// takes Go several seconds.
const isBuilt = "RUTTER_E2E_BUILT"

func build(ctx context.Context) (err error) {
	if built.root, err = plane.Root(); err != nil {
		return err
	}
	out := filepath.Join(built.root, "bin", "e2e")
	built.rutter, built.kubectl = filepath.Join(out, "rutter"), filepath.Join(out, "kubectl")
	if os.Getenv(isBuilt) != "" {
		built.plane, err = plane.BinariesHere()
		return err
	}
	built.plane, err = plane.BuildAll(ctx)
	return err
}

// startPlane starts a plane that ends with the test. What is left of it then
// fails the test; so does a part of it that did not live through the test.
// Tests that run in parallel (t.Parallel) give planes FirstPorts of their own,
// 200 apart: a port is free for others between its choice and its use.
func startPlane(t *testing.T, o plane.Options) *plane.Plane {
	t.Helper()
	o.Binaries = built.plane
	p, err := plane.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Healthy(context.Background()); err != nil {
			t.Errorf("at the end of the test: %v", err)
		}
		keepLogs(t, p)
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// keepLogs copies the logs of a failed test's plane to bin/e2e/logs.
func keepLogs(t *testing.T, p *plane.Plane) {
	if !t.Failed() {
		return
	}
	to := filepath.Join(built.root, "bin", "e2e", "logs", strings.ReplaceAll(t.Name(), "/", "-"))
	logs, err := filepath.Glob(filepath.Join(p.Dir(), "*.log"))
	if err == nil {
		err = os.MkdirAll(to, 0o700)
	}
	for _, l := range logs {
		b, readErr := os.ReadFile(l)
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(to, filepath.Base(l)), b, 0o600))
	}
	t.Logf("logs of the control plane are in %s (%v)", to, err)
}

// result is how a program ended.
type result struct {
	code        int
	out, errOut string
}

// rutterCommand is rutter with a state folder of its own, unless args name
// another place for its runs, and the plane's kubeconfig.
func rutterCommand(ctx context.Context, state, kubeconfig string, args ...string) *exec.Cmd {
	if !slices.Contains(args, "--state") {
		args = append(args, "--state", state)
	}
	cmd := exec.CommandContext(ctx, built.rutter, args...)
	cmd.Dir = built.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "NO_COLOR=1", "HOME="+state)
	return cmd
}

// rutter runs rutter to its end.
func rutter(t *testing.T, state, kubeconfig string, args ...string) result {
	t.Helper()
	return finish(t, rutterCommand(t.Context(), state, kubeconfig, args...))
}

// kubectl runs kubectl as the plane's Admin.
func kubectl(t *testing.T, p *plane.Plane, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), built.kubectl, append([]string{"--kubeconfig", p.AdminKubeconfig()}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+p.Dir())
	return finish(t, cmd)
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// want fails the test unless the program ended with a code.
func (r result) want(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.errOut)
	}
	return r
}
