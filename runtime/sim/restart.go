package sim

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// errRefused travels as a panic like errReset: there is no server.
var errRefused = errors.New("simulated connection refused")

// Restart kills the API server and starts it again on the same store after a
// while of virtual time, zero for at once. Connections are cut and watches end;
// until it is back, requests are refused at the socket. What is stored stays.
// Watches from a version of before get 410, as from a server whose cache is
// new. The controllers, which are other processes, go on.
func (c *Cluster) Restart(down time.Duration) {
	c.mu.Lock()
	for w := range c.watchers {
		w.close()
	}
	c.watchFloor = c.st.rv
	c.upAt, c.downNow = c.now.Add(down), down > 0
	c.isDown.Store(c.downNow)
	c.mu.Unlock()
	c.conns.cut()
}

// up ends a restart whose time has passed. The lock is held.
func (c *Cluster) up() {
	if c.downNow && !c.now.Before(c.upAt) {
		c.downNow, c.watchFloor = false, c.st.rv
		c.isDown.Store(false)
	}
}

// connections are the open connections of a served cluster.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]bool
}

// follow is an http.Server's ConnState.
func (s *connections) follow(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		if s.open == nil {
			s.open = map[net.Conn]bool{}
		}
		s.open[conn] = true
	case http.StateClosed, http.StateHijacked:
		delete(s.open, conn)
	case http.StateActive, http.StateIdle:
	}
}

func (s *connections) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		_ = conn.Close() // its other end notices
	}
}
