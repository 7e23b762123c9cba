//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"rutter.dev/rutter/tests/e2e/plane"
)

// Two rutters on one mesh: the second is refused, and takes the run over when
// the first is gone, on another machine too.
func twoRutters(t *testing.T, p *plane.Plane) {
	kubectl(t, p, "create", "namespace", "istio-system").want(t, 0)
	for _, tc := range []struct {
		name string
		test func(*testing.T, *plane.Plane)
	}{
		{"the second is refused", secondRefused},
		{"handed over with its nonce, and the first wakes up", handedOver},
		{"killed, and taken over when the lock has run out", takenOver},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, p) })
	}
}

// machine is where a rutter runs: a host name and a home of its own. Nothing is
// on it but what it is given.
type machine struct {
	t          *testing.T
	name, home string
	kubeconfig string
}

func newMachine(t *testing.T, p *plane.Plane, name string) *machine {
	t.Helper()
	return &machine{t: t, name: name, home: t.TempDir(), kubeconfig: p.Kubeconfig()}
}

// command is rutter there, with runs kept in the cluster.
func (m *machine) command(args ...string) *exec.Cmd {
	args = append([]string{built.rutter}, append(args, "--state", "cluster")...)
	if own, err := exec.LookPath("unshare"); err == nil && os.Geteuid() == 0 {
		args = append([]string{own, "--uts", "sh", "-c", `hostname "$0" && exec "$@"`, m.name}, args...)
	}
	cmd := exec.CommandContext(m.t.Context(), args[0], args[1:]...)
	cmd.Dir = built.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.kubeconfig, "NO_COLOR=1", "HOME="+m.home, "XDG_STATE_HOME="+m.home, "XDG_CACHE_HOME="+m.home)
	return cmd
}

func (m *machine) rutter(args ...string) result {
	m.t.Helper()
	return finish(m.t, m.command(args...))
}

// host is the name that rutter finds.
func (m *machine) host() string {
	m.t.Helper()
	if _, err := exec.LookPath("unshare"); err == nil && os.Geteuid() == 0 {
		return m.name
	}
	host, err := os.Hostname()
	if err != nil {
		m.t.Fatal(err)
	}
	return host
}

// steady begins testdata/steady.star.
func (m *machine) steady(prefix string) *stream {
	return follow(m.t, m.command("run", "tests/e2e/testdata/steady.star", "--yes", "-o", "json",
		"--set", "prefix="+prefix, "--set", "before=10", "--set", "after=3"))
}

// keyFrom copies the key to which the runs of another machine seal Secrets.
func (m *machine) keyFrom(o *machine) {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(o.home, "rutter", "age.key"))
	if err == nil {
		err = os.MkdirAll(filepath.Join(m.home, "rutter"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(m.home, "rutter", "age.key"), b, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (s *stream) send(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// run is the id of the run.
func (s *stream) run() string {
	s.t.Helper()
	for _, e := range s.events {
		if e.Run != "" {
			return e.Run
		}
	}
	s.t.Fatal("no event names the run")
	return ""
}

// onRecord are the changes of the mesh that were made since a mark; where a
// journal is kept is not of the mesh.
func onRecord(t *testing.T, p *plane.Plane, mark int64) []change {
	t.Helper()
	var out []change
	for _, c := range changes(t, p, mark) {
		if c.taken() && c.resource != "secrets" {
			out = append(out, c)
		}
	}
	return out
}

// each fails the test unless every object of the run is there, and was made by
// one request.
func each(t *testing.T, p *plane.Plane, mark int64, prefix string) {
	t.Helper()
	made := map[string]int{}
	for _, c := range onRecord(t, p, mark) {
		made[c.name]++
	}
	for phase, n := range map[string]int{"before": 10, "after": 3} {
		for i := range n {
			name := fmt.Sprintf("%s-%s-%d", prefix, phase, i)
			if made[name] != 1 {
				t.Errorf("configmap %s was written by %d requests, want 1", name, made[name])
			}
			object(t, p, "", "v1", "ConfigMap", "default", name)
		}
	}
}

func secondRefused(t *testing.T, p *plane.Plane) {
	one, two := newMachine(t, p, "one"), newMachine(t, p, "two")
	first := one.steady("alone")
	first.until("it waits", started("wait"))
	run, mark := first.run(), auditMark(t, p)
	for _, args := range [][]string{
		{"run", "tests/e2e/testdata/steady.star", "--yes", "--set", "prefix=other"},
		{"resume", run, "--yes"},
	} {
		second := two.rutter(args...)
		if args[0] == "run" {
			second.want(t, 3)
			second.says(t, "RUT002", "the mesh is locked: run "+run+", by ", "on host "+one.host())
		} else if second.code == 0 {
			t.Errorf("a run that is alive elsewhere was resumed:\n%s", second.errOut)
		}
	}
	if all := onRecord(t, p, mark); len(all) > 0 {
		t.Errorf("the second changed %v", all)
	}
	kubectl(t, p, "create", "configmap", "alone-go").want(t, 0)
	if r := first.end(); r.code != 0 {
		t.Errorf("the first was disturbed: exit %d\n%s", r.code, r.errOut)
	}
}

var nonceOf = regexp.MustCompile(`lease in istio-system, nonce (\S+)`)

// handedOver: the first is stopped as a laptop is that is closed. A second
// machine learns the nonce from the journal, takes the mesh and ends the run.
// Then the first wakes up.
func handedOver(t *testing.T, p *plane.Plane) {
	one, two := newMachine(t, p, "one"), newMachine(t, p, "two")
	mark := auditMark(t, p)
	first := one.steady("given")
	first.until("it waits", started("wait"))
	first.send(syscall.SIGSTOP)
	run := first.run()
	kubectl(t, p, "create", "configmap", "given-go").want(t, 0)

	shown := two.rutter("show", run).want(t, 0)
	nonce := nonceOf.FindStringSubmatch(shown.out)
	if nonce == nil {
		t.Fatalf("rutter show does not tell the nonce:\n%s", shown.out)
	}
	two.rutter("resume", run, "--yes").want(t, 2).says(t, "its Secrets are sealed to", "copy age.key of host "+one.host())
	two.keyFrom(one)
	unlock := exec.CommandContext(t.Context(), built.rutter, "unlock", nonce[1])
	unlock.Env = two.command().Env
	finish(t, unlock).want(t, 0).says(t, "it was held by run "+run, "on host "+one.host())
	two.rutter("resume", run, "--yes").want(t, 0).says(t, "✓ given-before-0", "from the journal")
	each(t, p, mark, "given")

	woken := auditMark(t, p)
	first.send(syscall.SIGCONT)
	first.end().want(t, 5)
	if all := changes(t, p, woken); len(all) > 0 {
		for _, c := range all {
			if c.taken() {
				t.Errorf("the first woke up and wrote: %s", c.what())
			}
		}
	}
	two.rutter("show", run).want(t, 0).says(t, "all verified")
}

// takenOver: the first is killed, and nobody unlocks anything. The second
// watches the lock until it has run out.
func takenOver(t *testing.T, p *plane.Plane) {
	one, two := newMachine(t, p, "one"), newMachine(t, p, "two")
	mark := auditMark(t, p)
	first := one.steady("left")
	first.until("the fifth change", intent(5))
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if r := first.end(); r.code != -1 {
		t.Fatalf("the first ended by itself with %d\n%s", r.code, r.errOut)
	}
	run := first.run()
	if n := len(onRecord(t, p, mark)); n == 0 || n > 9 {
		t.Fatalf("%d changes were made when it was killed", n)
	}
	kubectl(t, p, "create", "configmap", "left-go").want(t, 0)
	if r := two.rutter("runs").want(t, 0); !strings.Contains(r.out, run) {
		t.Errorf("the second does not see the run:\n%s", r.out)
	}
	two.keyFrom(one)
	two.rutter("resume", "--yes").want(t, 0).says(t, run)
	each(t, p, mark, "left")
	until(t, "the lock is let go", func(ctx context.Context) (bool, error) {
		r := kubectl(t, p, "get", "lease", "rutter", "-n", "istio-system", "--ignore-not-found", "-o", "name")
		return r.code == 0 && strings.TrimSpace(r.out) == "", nil
	})
}
