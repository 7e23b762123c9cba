// Package scripts holds the command line to the txtar scripts in testdata:
// each is a session at a shell, with rutter and the real kubectl.
package scripts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"rutter.dev/rutter/cmd/cli"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/tests/e2e/plane"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rutter": func() { os.Exit(cli.Main(os.Args[1:])) }})
}

// patience is how long a script waits for something to become true.
const patience = time.Minute

func TestScripts(t *testing.T) {
	tools, cache := t.TempDir(), t.TempDir()
	// The real clients, at the versions of the libraries: those of the end-to-end
	// tests, so that they are linked once.
	offer(t, tools, "kubectl", plane.BuildKubectl)
	offer(t, tools, "istioctl", plane.BuildIstiobox)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", tools+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("XDG_CACHE_HOME", cache) // renders are shared
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("KUBECONFIG", filepath.Join(e.WorkDir, "kubeconfig"))
			return nil
		},
		Cmds:                commands(),
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "", // then look at the difference before you commit it
		RequireExplicitExec: true,
	})
}

// offer builds a client, where it is not built already, and puts it into dir by
// its name.
func offer(t *testing.T, dir, name string, build func(context.Context) (string, error)) {
	t.Helper()
	path, err := build(t.Context())
	if err == nil {
		err = os.Symlink(path, filepath.Join(dir, name))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs "rutter sim serve ARGS" in the process until the script ends. It
// returns once the cluster can be reached with $KUBECONFIG.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! serve")
	}
	ctx, stop := context.WithCancel(context.Background())
	talk := &announced{ready: make(chan struct{})}
	var out bytes.Buffer
	e := &env.Env{
		Clock: env.SystemClock{}, Rand: strings.NewReader(""), Getenv: ts.Getenv, Stdin: strings.NewReader(""),
		Stdout: &out, Stderr: talk, IsTerminal: func(any) bool { return false }, Workdir: ts.MkAbs("."),
	}
	ended := make(chan int, 1)
	go func() {
		ended <- cli.Run(ctx, ctx, e, append([]string{"sim", "serve", "--speed", "30", "--kubeconfig-out", ts.Getenv("KUBECONFIG")}, args...))
	}()
	select {
	case <-talk.ready:
	case code := <-ended:
		stop()
		ts.Fatalf("rutter sim serve ended with %d:\n%s", code, talk)
	}
	ts.Defer(func() {
		stop()
		if code := <-ended; code != 0 {
			ts.Logf("rutter sim serve ended with %d:\n%s", code, talk)
		}
	})
}

// announced is a stream that notices when the server says where it is.
type announced struct {
	mu    sync.Mutex
	text  strings.Builder
	ready chan struct{}
	once  sync.Once
}

// Write implements io.Writer.
func (a *announced) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err := a.text.Write(p)
	if strings.Contains(a.text.String(), "serving on http://") {
		a.once.Do(func() { close(a.ready) })
	}
	return n, err
}

// String is what was said so far.
func (a *announced) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.String()
}

// until runs a command again and again until its output matches:
// until REGEXP COMMAND ARGS…
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND [ARGS…]")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	last := "nothing"
	poll(ts, func() bool {
		err := ts.Exec(args[1], args[2:]...)
		last = ts.ReadFile("stdout")
		if err != nil {
			last += fmt.Sprintf("%v\n%s", err, ts.ReadFile("stderr"))
		}
		return err == nil && want.MatchString(last)
	}, func() string {
		return fmt.Sprintf("%q did not come in %v; the last answer:\n%s", args[0], patience, last)
	})
}

// waitFile waits until a file is there.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile FILE")
	}
	poll(ts, func() bool {
		_, err := os.Stat(ts.MkAbs(args[0]))
		return err == nil
	}, func() string { return args[0] + ": did not appear" })
}

func poll(ts *testscript.TestScript, done func() bool, failure func() string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			ts.Fatalf("%s", failure())
		}
	}
}
