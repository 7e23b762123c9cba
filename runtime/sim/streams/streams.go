// Package streams is the part of a kubelet that connects clients with what
// runs in pods: portforward, exec, and the API server's proxy. It speaks what
// the real ones speak, with their libraries: SPDY/3.1, SPDY tunnelled through a
// websocket (portforward), and the older websocket protocols.
//
// What is in the pods is somebody else's: Pods. This package is apart from the
// simulated cluster because it links the kubelet's and the API server's
// streaming code.
package streams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"rutter.dev/rutter/runtime/sim"
)

// Pods is what runs in the pods.
type Pods interface {
	// Dial connects to a port of a pod. When nothing listens there, the error
	// is ErrRefused.
	Dial(ctx context.Context, pod *unstructured.Unstructured, port int) (net.Conn, error)
	// Exec runs a command in a container and returns its exit code; the error
	// is that the command could not be started.
	Exec(ctx context.Context, pod *unstructured.Unstructured, container string, command []string, in io.Reader, out, errs io.Writer) (int, error)
}

// ErrRefused is returned by Dial when nothing listens on the port.
var ErrRefused = errors.New("connection refused")

// The kubelet's own limits.
const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = 30 * time.Second
)

// Server implements sim.Connector. It is safe for concurrent use when its Pods
// are.
type Server struct{ pods Pods }

var _ sim.Connector = (*Server)(nil)

// New makes a server in front of pods.
func New(pods Pods) *Server { return &Server{pods} }

// Connect implements sim.Connector.
func (s *Server) Connect(w http.ResponseWriter, r *http.Request, to sim.Connection) {
	if to.Subresource == "proxy" {
		s.proxy(w, r, to)
		return
	}
	up := &hijacker{ResponseWriter: w, ctx: r.Context()}
	defer up.end()
	if to.Subresource == "exec" {
		s.exec(up, r, to.Pod)
		return
	}
	s.portForward(up, r, to.Pod)
}

// portForward serves any number of connections to a pod's ports over one
// request.
func (s *Server) portForward(w http.ResponseWriter, r *http.Request, pod *unstructured.Unstructured) {
	serve := func(w http.ResponseWriter, r *http.Request) {
		options, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, forwarder{s.pods, pod}, pod.GetName(), string(pod.GetUID()), options, idleTimeout, creationTimeout, portforward.SupportedProtocols)
	}
	if wsstream.IsWebSocketRequestWithTunnelingProtocol(r) {
		proxy.NewTunnelingHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			serve(&rawUpgrade{ResponseWriter: w, header: http.Header{}}, r)
		})).ServeHTTP(w, r)
		return
	}
	serve(w, r)
}

type forwarder struct {
	pods Pods
	pod  *unstructured.Unstructured
}

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, name, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := f.pods.Dial(ctx, f.pod, int(port))
	if err != nil {
		return fmt.Errorf("failed to connect to localhost:%d inside pod %s: dial tcp4 127.0.0.1:%d: connect: %w", port, name, port, err)
	}
	join(conn, stream)
	return nil
}

// join copies in both directions until the pod's side has ended, or the
// client's has ended and been answered.
func join(conn net.Conn, stream io.ReadWriteCloser) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := io.Copy(conn, stream)
		_ = err // an end, of whatever kind
		_ = conn.Close()
	}()
	_, err := io.Copy(stream, conn)
	_ = err // an end, of whatever kind
	_ = conn.Close()
	_ = stream.Close()
	<-done
}

// exec runs a command in a container.
func (s *Server) exec(w http.ResponseWriter, r *http.Request, pod *unstructured.Unstructured) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// The API's parameters are booleans; the kubelet's have other names, and ones.
	for from, to := range map[string]string{
		"stdin": remotecommand.ExecStdinParam, "stdout": remotecommand.ExecStdoutParam,
		"stderr": remotecommand.ExecStderrParam, "tty": remotecommand.ExecTTYParam,
	} {
		if v := r.Form.Get(from); v == "true" || v == "1" {
			r.Form.Set(to, "1")
		}
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, executor{s.pods, pod}, pod.GetName(), string(pod.GetUID()), r.Form.Get("container"), r.Form["command"],
		options, idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

type executor struct {
	pods Pods
	pod  *unstructured.Unstructured
}

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, _, _, container string, command []string, in io.Reader, out, errs io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if errs == nil { // a terminal has one stream
		errs = out
	}
	code, err := e.pods.Exec(ctx, e.pod, container, command, in, out, errs)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// exitError implements k8s.io/utils/exec.ExitError.
type exitError int

func (e exitError) Error() string   { return fmt.Sprintf("exit status %d", int(e)) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return int(e) }

// proxy passes an HTTP request on to a port of a pod.
func (s *Server) proxy(w http.ResponseWriter, r *http.Request, to sim.Connection) {
	port := to.Port
	if port == 0 {
		port = firstPort(to.Pod)
	}
	ip, _, _ := unstructured.NestedString(to.Pod.Object, "status", "podIP")
	address := net.JoinHostPort(ip, fmt.Sprint(port))
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := s.pods.Dial(fromOutside(ctx), to.Pod, port)
			if err != nil {
				return nil, fmt.Errorf("dial tcp %s: connect: %w", address, err)
			}
			return conn, nil
		},
	}
	(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: address})
			p.Out.URL.Path, p.Out.URL.RawPath = "/"+strings.TrimPrefix(to.Path, "/"), ""
			p.SetXForwarded()
			p.Out.Header.Del("Authorization") // the API server keeps its own
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "error trying to reach service: %v", err)
		},
	}).ServeHTTP(w, r)
}

func firstPort(pod *unstructured.Unstructured) int {
	containers, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	for _, x := range containers {
		c, _ := x.(map[string]any)
		ports, _ := c["ports"].([]any)
		for _, y := range ports {
			p, _ := y.(map[string]any)
			if n, ok := p["containerPort"].(int64); ok {
				return int(n)
			}
		}
	}
	return 80
}

type outside struct{}

// fromOutside marks the context of a connection that comes over the network;
// portforward's come from the pod's own loopback.
func fromOutside(ctx context.Context) context.Context {
	return context.WithValue(ctx, outside{}, true)
}

// FromOutside reports whether a connection that is being dialed comes over the
// network rather than from the pod's own loopback.
func FromOutside(ctx context.Context) bool { return ctx.Value(outside{}) != nil }
