package istiod

import (
	"context"
	"fmt"
	"net"
	"sync"

	"rutter.dev/rutter/runtime/sim/streams"
)

// listener hands the server ends of pipes to a server, which thinks them
// connections from the network.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return address{} }

// dial makes a connection on which the server sees the address as the peer's.
func (l *listener) dial(ctx context.Context, to address) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- addressed{server, to}:
		return client, nil
	case <-l.done:
		return nil, streams.ErrRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// address says which pod a connection leads to, and from where.
type address struct {
	namespace, name string
	port            int
	outside         bool // not from the pod's own loopback
}

// Network implements net.Addr.
func (address) Network() string { return "sim" }

// String implements net.Addr.
func (a address) String() string {
	if a.outside {
		return "192.0.2.1:40000" // an address of documentation, of nobody
	}
	return fmt.Sprintf("127.0.0.1:%d", 40000)
}

type addressed struct {
	net.Conn
	peer address
}

// RemoteAddr implements net.Conn.
func (a addressed) RemoteAddr() net.Addr { return a.peer }

// origin is the key of a request's address in its context.
type origin struct{}
