package plane

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// listens makes the test binary listen on a port, say which, and wait to be killed.
const listens = "RUTTER_PLANE_LISTENS"

func TestMain(m *testing.M) {
	if os.Getenv(listens) == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	select {}
}

// What is still there is found by its mark though nobody knows its pid, with
// its port; this process, which may bear it as well, is not.
func TestMarked(t *testing.T) {
	mark := fmt.Sprintf("%s=%d-%d", listens, os.Getpid(), time.Now().UnixNano())
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), mark)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	found, err := Marked(mark)
	if err != nil || len(found) != 1 || !strings.HasSuffix(found[0], fmt.Sprintf("(pid %d) listening on %s", child.Process.Pid, strings.TrimSpace(port))) {
		t.Errorf("found %q, %v; want pid %d on port %s", found, err, child.Process.Pid, port)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err = Until(t.Context(), 5*time.Second, func(context.Context) (bool, error) {
		found, err := Marked(mark)
		return len(found) == 0, err
	})
	if err != nil {
		t.Errorf("killed, and found: %v", err)
	}
	own := slices.IndexFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "PATH=") })
	found, err = Marked(os.Environ()[own])
	if i := slices.IndexFunc(found, func(s string) bool { return strings.HasSuffix(s, fmt.Sprintf("(pid %d)", os.Getpid())) }); err != nil || i >= 0 {
		t.Errorf("it finds itself: %v", err)
	}
}
