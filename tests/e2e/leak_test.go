//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/tests/e2e/plane"
)

// leaveIn makes the test binary start a plane in the directory that it names,
// say so, and wait to be killed.
const leaveIn = "RUTTER_E2E_LEAVE_IN"

func leavePlane(dir string) int {
	b, err := plane.BinariesHere()
	if err == nil {
		_, err = plane.Start(context.Background(), plane.Options{Binaries: b, Dir: dir, Nodes: 1, FirstPort: 21600})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("up")
	select {}
}

// A test that is killed takes its control plane along: processes that stayed
// would keep ports, and serve the next test with the wrong certificates.
func TestNothingOutlivesItsTest(t *testing.T) {
	parallel(t, 25*time.Second)
	dir, err := os.MkdirTemp("", "rutter-e2e-leak-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), leaveIn+"="+filepath.Join(dir, "p"))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.TrimSpace(said) != "up" {
		t.Fatalf("%q, %v", said, err)
	}
	p, err := plane.Open(filepath.Join(dir, "p"))
	if err != nil {
		t.Fatal(err)
	}
	if running := p.Leaks(); len(running) < 6 {
		t.Errorf("of a plane that runs, only this is seen: %q", running)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	err = plane.Until(t.Context(), 10*time.Second, func(context.Context) (bool, error) { return len(p.Leaks()) == 0, nil })
	if err != nil {
		t.Errorf("left over: %q", p.Leaks())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping what is gone: %v", err)
	}
}
