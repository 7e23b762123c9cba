package streams

import (
	"bufio"
	"context"
	"net"
	"net/http"
)

// hijacker ends a taken-over connection with its context: the streaming code
// waits for the client alone, and the server has to be able to stop.
type hijacker struct {
	http.ResponseWriter
	ctx  context.Context
	stop func() bool
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err == nil {
		h.stop = context.AfterFunc(h.ctx, func() { _ = conn.Close() })
	}
	return conn, rw, err
}

func (h *hijacker) end() {
	if h.stop != nil {
		h.stop()
	}
}
