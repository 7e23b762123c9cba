package streams

import (
	"bufio"
	"context"
	"errors"
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

// rawUpgrade lets a handler that answers 101 by WriteHeader, and takes the
// connection over then, run behind the API server's tunnel, which expects what
// a proxy does: the connection first, and the answer written into it.
type rawUpgrade struct {
	http.ResponseWriter
	header    http.Header
	switching bool
}

// Header implements http.ResponseWriter.
func (u *rawUpgrade) Header() http.Header { return u.header }

// WriteHeader implements http.ResponseWriter.
func (u *rawUpgrade) WriteHeader(code int) {
	if code == http.StatusSwitchingProtocols {
		u.switching = true
		return
	}
	for k, v := range u.header {
		u.ResponseWriter.Header()[k] = v
	}
	u.ResponseWriter.WriteHeader(code)
}

// Hijack implements http.Hijacker.
func (u *rawUpgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil || !u.switching {
		return conn, rw, err
	}
	answer := http.Response{StatusCode: http.StatusSwitchingProtocols, ProtoMajor: 1, ProtoMinor: 1, Header: u.header}
	if err := answer.Write(conn); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	if rw == nil {
		rw = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	return conn, rw, nil
}
