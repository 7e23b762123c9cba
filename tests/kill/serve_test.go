package kill

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClientsHangUp: connections that break under the server's hands raise
// SIGPIPE in it, which is no reason to stop.
func TestClientsHangUp(t *testing.T) {
	p := newPlace(t, t.TempDir())
	cmd := p.command("sim", "serve", "mesh,istio=1.30.3,workloads=4")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // the test fails by what is missing then
	t.Cleanup(func() {
		deadline.Stop()
		_ = cmd.Process.Kill() // ended already, unless the test failed
	})
	var server string
	for s := bufio.NewScanner(out); server == "" && s.Scan(); {
		if _, url, ok := strings.Cut(s.Text(), "server: "); ok {
			server = strings.TrimSpace(url)
		}
	}
	addr := strings.TrimPrefix(server, "http://")
	for range 10 {
		hangUp(t, addr)
	}
	resp, err := http.Get(server + "/version")
	if err != nil {
		t.Fatalf("after clients that hung up: %v", err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s, %v", resp.Status, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("ended with %v, want exit 0", err)
	}
}

// hangUp asks for much, takes its beginning, says that it is done, and is gone
// while the server still writes.
func hangUp(t *testing.T, addr string) {
	t.Helper()
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { // so that the answer does not fit in between
		var set error
		err := c.Control(func(fd uintptr) { set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return errors.Join(err, set)
	}}
	c, err := small.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("%q: %v", addr, err)
	}
	if _, err := fmt.Fprintf(c, "GET /openapi/v2 HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
