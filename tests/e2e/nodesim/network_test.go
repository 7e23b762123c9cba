package nodesim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// listen serves one line to each caller and returns its address.
func listen(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "istiod\n")
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// Connections go where a pod's process is, and nowhere when it has none.
func TestNetwork(t *testing.T) {
	behind := listen(t)
	n := &network{pods: map[string]routes{}}
	n.add("10.80.0.2", routes{15017: behind})
	n.add("10.80.0.3", routes{15017: behind})
	n.remove("10.80.0.3")
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- n.serve(ctx, l) }()
	for _, tc := range []struct {
		addr string
		code int
	}{
		{"10.80.0.2:15017", http.StatusOK},
		{behind, http.StatusOK}, // loopback: kwok's kubelet
		{"10.80.0.2:8080", http.StatusBadGateway},
		{"10.80.0.3:15017", http.StatusBadGateway},
		{"10.96.0.10:443", http.StatusBadGateway},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			c, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close() //nolint:errcheck // done with
			if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", tc.addr); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.code {
				t.Fatalf("got %s, want %d", resp.Status, tc.code)
			}
			if line, err := r.ReadString('\n'); tc.code == http.StatusOK && (err != nil || strings.TrimSpace(line) != "istiod") {
				t.Errorf("through it came %q, %v", line, err)
			}
		})
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("at its end: %v", err)
	}
}
