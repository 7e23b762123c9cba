package plane

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// A port that somebody has is not given out, and a given one stays taken until
// it is released.
func TestReserve(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // it ends with the test
	port := taken.Addr().(*net.TCPAddr).Port
	r, got, err := reserve(port, 2)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(got, port) {
		t.Errorf("port %d is somebody's and was given out", port)
	}
	if free(got[0]) || free(got[1]) {
		t.Errorf("ports %v are not held", got)
	}
	if err := r.release(got[0]); err != nil || !free(got[0]) || free(got[1]) {
		t.Errorf("release of one: %v; free: %t, %t", err, free(got[0]), free(got[1]))
	}
	if err := r.releaseAll(); err != nil || !free(got[1]) {
		t.Errorf("release of all: %v", err)
	}
	if _, _, err := reserve(port, portSpan+1); err == nil {
		t.Error("more ports than are looked at")
	}
}

// A process is signalled only while its pid is that of its executable: pids are
// given away again.
func TestProcessOfAnotherExecutableIsNotHit(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep on this machine")
	}
	cmd := exec.Command(sleep, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	exe, err := executable(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, tc := range []struct {
		name, exe string
		want      error
	}{
		{"another", filepath.Join(dir, "kubebox"), ErrGone},
		{"same", exe, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := writePID(dir, &process{name: "etcd", exe: tc.exe, pid: cmd.Process.Pid}); err != nil {
				t.Fatal(err)
			}
			p, err := findProcess(dir, "etcd")
			if err != nil {
				t.Fatal(err)
			}
			if err := p.signal(syscall.Signal(0)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// The scheduler is started again when it ends by itself, but neither too often
// nor when the plane is stopped; what a test kills stays dead.
func TestWhatIsKeptRunning(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep on this machine")
	}
	p := &Plane{dir: t.TempDir(), started: map[string]*process{}}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{scheduler, apiServer} {
		if err := p.launch(command{name: name, exe: sleep, args: []string{"60"}}); err != nil {
			t.Fatal(err)
		}
	}
	for range keptTimes {
		before, err := p.process(scheduler)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.kill(scheduler); err != nil {
			t.Fatal(err)
		}
		err = Until(t.Context(), 10*time.Second, func(context.Context) (bool, error) {
			now, err := p.process(scheduler)
			return err == nil && now.pid != before.pid && now.alive(), err
		})
		if err != nil {
			t.Fatalf("it was not started again: %v", err)
		}
	}
	for _, name := range []string{apiServer, scheduler} {
		if err := p.kill(name); err != nil {
			t.Fatal(err)
		}
		if proc, err := p.process(name); err != nil || proc.alive() {
			t.Errorf("%s: %v, alive %t", name, err, proc.alive())
		}
	}
	if log := p.logTail(scheduler); !strings.Contains(log, "started again (3 of 3)") || strings.Contains(p.logTail(apiServer), "started again") {
		t.Errorf("the log says %q", log)
	}
}

func TestFindProcess(t *testing.T) {
	dir := t.TempDir()
	if _, err := findProcess(dir, "etcd"); !errors.Is(err, ErrGone) {
		t.Errorf("no pid file: got %v, want ErrGone", err)
	}
	for _, text := range []string{"", "nonsense\n/bin/x\n", "1\n/bin/x\n", "4711\n"} {
		if err := os.WriteFile(filepath.Join(dir, "etcd.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := findProcess(dir, "etcd"); err == nil {
			t.Errorf("pid file %q: got %+v", text, p)
		}
	}
}

// The last line of a log that is being written may be half of one.
func TestAuditSince(t *testing.T) {
	p := &Plane{dir: t.TempDir()}
	if mark, err := p.AuditMark(); mark != 0 || err != nil {
		t.Errorf("no log yet: %d, %v", mark, err)
	}
	const first = `{"verb":"get","user":{"username":"operator"}}` + "\n"
	const rest = `{"verb":"patch","user":{"username":"operator"}}` + "\n" + `{"verb":"patch","user":{"username":"admin"}}` + "\n" + `{"verb":"del`
	write := func(text string) {
		if err := os.WriteFile(p.AuditLog(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	mark, err := p.AuditMark()
	if err != nil {
		t.Fatal(err)
	}
	write(first + rest)
	for _, tc := range []struct {
		name string
		mark int64
		keep func(*auditv1.Event) bool
		want int
	}{
		{"all", 0, nil, 3},
		{"one user", 0, By("operator"), 2},
		{"changes of one user", 0, WritesBy("operator"), 1},
		{"since the mark", mark, nil, 2},
	} {
		got, err := p.AuditSince(tc.mark, tc.keep)
		if err != nil || len(got) != tc.want {
			t.Errorf("%s: got %d events, %v; want %d", tc.name, len(got), err, tc.want)
		}
	}
}

func TestStartRefusesADirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plane.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Start(t.Context(), Options{Dir: dir}); err == nil {
		t.Errorf("started %s", p.Dir())
	}
}
