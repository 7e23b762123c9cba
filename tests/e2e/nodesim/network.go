package nodesim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// routes are the ports of a pod and the loopback addresses behind them.
type routes map[int]string

// network carries connections to pod addresses. An API server asks for them
// with HTTP CONNECT (k8s.io/apiserver, pkg/server/egressselector).
type network struct {
	mu   sync.Mutex
	pods map[string]routes // by pod address
}

func (n *network) add(ip string, r routes) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pods[ip] = r
}

func (n *network) remove(ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, ip)
}

// resolve finds where a pod's port really is. Loopback (kwok's kubelet) stays
// what it is.
func (n *network) resolve(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return addr, nil
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	to, ok := n.pods[host][number]
	if !ok {
		return "", fmt.Errorf("%s: no process behind it", addr)
	}
	return to, nil
}

func (n *network) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("pod network: %w", err)
		}
		go n.carry(ctx, c)
	}
}

// carry serves one CONNECT and then copies both ways until one side ends.
func (n *network) carry(ctx context.Context, c net.Conn) {
	defer c.Close() //nolint:errcheck // done with
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		note("pod network: not a CONNECT: %v", err)
		return
	}
	to, err := n.resolve(req.RequestURI)
	var out net.Conn
	if err == nil {
		d := net.Dialer{Timeout: 5 * time.Second}
		out, err = d.DialContext(ctx, "tcp", to)
	}
	if err != nil {
		note("pod network: %v", err)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 502 %v\r\nContent-Length: 0\r\n\r\n", err)
		return
	}
	defer out.Close() //nolint:errcheck // done with
	stop := context.AfterFunc(ctx, func() { _, _ = c.Close(), out.Close() })
	defer stop()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	done := make(chan error, 2)
	go func() { done <- pump(out, r) }()
	go func() { done <- pump(c, out) }()
	if err := <-done; err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		note("pod network: %s: %v", to, err)
	}
}

func pump(to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, from)
	return err
}
