package streams_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/streams"
)

// echo is a pod whose port 7 gives back what it gets and whose port 80 speaks
// HTTP; exec runs "cat", and "fail" with code 3.
type echo struct{}

func (echo) Dial(_ context.Context, pod *unstructured.Unstructured, port int) (net.Conn, error) {
	here, there := net.Pipe()
	switch port {
	case 7:
		go func() {
			_, err := io.Copy(there, there)
			_ = errors.Join(err, there.Close())
		}()
	case 80:
		go func() {
			buf := make([]byte, 4096)
			n, err := there.Read(buf)
			line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
			_, werr := fmt.Fprintf(there, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s of %s", line, pod.GetName())
			_ = errors.Join(err, werr, there.Close())
		}()
	default:
		return nil, streams.ErrRefused
	}
	return here, nil
}

func (echo) Exec(_ context.Context, _ *unstructured.Unstructured, container string, command []string, in io.Reader, out, errs io.Writer) (int, error) {
	switch command[0] {
	case "cat":
		_, err := io.Copy(out, in)
		return 0, err
	case "fail":
		_, err := fmt.Fprintf(errs, "%s failed in %s", strings.Join(command, " "), container)
		return 3, err
	}
	return 0, errors.New("no such command")
}

const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 8080, targetPort: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: app, image: "web:1", ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pending, namespace: shop}
spec: {containers: [{name: app, image: "web:1"}]}
`

// serve serves a cluster with the pods on loopback until the test ends.
func serve(t *testing.T) *rest.Config {
	t.Helper()
	c, err := sim.New(sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	objs, err := sim.ReadObjects(strings.NewReader(objects), "objects")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(objs); err != nil {
		t.Fatal(err)
	}
	c.OnConnect(streams.New(echo{}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Serve(ctx, l, sim.ServeOptions{}) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serving: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the server does not end while somebody is connected")
		}
	})
	return &rest.Config{Host: "http://" + l.Addr().String()}
}

func at(t *testing.T, rc *rest.Config, path string) *url.URL {
	t.Helper()
	u, err := url.Parse(rc.Host + "/api/v1/namespaces/shop/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// dialers are the two ways in which clients ask for port forwarding.
func dialers(t *testing.T, rc *rest.Config, pod string) map[string]httpstream.Dialer {
	t.Helper()
	u := at(t, rc, "pods/"+pod+"/portforward")
	trip, upgrader, err := spdy.RoundTripperFor(rc)
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(u, rc)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]httpstream.Dialer{
		"SPDY":      spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: trip}, http.MethodPost, u),
		"websocket": tunnel,
	}
}

func TestPortForward(t *testing.T) {
	rc := serve(t)
	for name, dialer := range dialers(t, rc, "web") {
		t.Run(name, func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			fw, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{"0:7", "0:9"}, stop, ready, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- fw.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-ended:
				t.Fatal(err)
			}
			ports, err := fw.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 { // one request bears many connections
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
				if err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprintf("number %d", i)
				if _, err := io.WriteString(conn, want); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
					t.Errorf("%q came back as %q: %v", want, got, err)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			}
			// Nothing listens on the other port: the connection ends at once.
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[1].Local))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(conn); len(b) > 0 {
				t.Errorf("%q from a port where nothing listens: %v", b, err)
			}
			close(stop)
			if err := <-ended; err != nil && !errors.Is(err, portforward.ErrLostConnectionToPod) {
				t.Error(err)
			}
		})
	}
}

func TestServerEndsWithOpenConnections(t *testing.T) {
	rc := serve(t) // its cleanup holds that it ends
	conn, _, err := dialers(t, rc, "web")["SPDY"].Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
}

func TestExec(t *testing.T) {
	rc := serve(t)
	for _, c := range []struct {
		query, in, out, errs, failure string
	}{
		{"command=cat&stdin=true", "hello", "hello", "", ""},
		{"command=fail&command=it", "", "", "fail it failed in app", "exit code 3"},
		{"command=none", "", "", "", "no such command"},
	} {
		t.Run(c.query, func(t *testing.T) {
			e, err := remotecommand.NewSPDYExecutor(rc, http.MethodPost, at(t, rc, "pods/web/exec?container=app&stdout=true&stderr=true&"+c.query))
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			o := remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}
			if c.in != "" {
				o.Stdin = strings.NewReader(c.in)
			}
			err = e.StreamWithContext(t.Context(), o)
			if (err == nil) != (c.failure == "") || err != nil && !strings.Contains(err.Error(), c.failure) {
				t.Errorf("error %v, want %q", err, c.failure)
			}
			if out.String() != c.out || errs.String() != c.errs {
				t.Errorf("out %q, err %q", out.String(), errs.String())
			}
		})
	}
}

func TestProxy(t *testing.T) {
	rc := serve(t)
	for _, c := range []struct {
		path string
		code int
		body string
	}{
		{"pods/web/proxy/a/b?c=d", 200, "GET /a/b?c=d HTTP/1.1 of web"},
		{"pods/web:80/proxy/", 200, "GET / HTTP/1.1 of web"},
		{"pods/http:web:80/proxy/x", 200, "GET /x HTTP/1.1 of web"},
		{"pods/web:81/proxy/x", 503, "error trying to reach service: dial tcp 10.0.0.1:81: connect: connection refused"},
		{"services/web/proxy/x", 200, "GET /x HTTP/1.1 of web"},
		{"services/web:http/proxy/x", 200, "GET /x HTTP/1.1 of web"},
		{"services/web:8080/proxy/x", 200, "GET /x HTTP/1.1 of web"},
		{"services/web:9/proxy/x", 503, `no service port \"9\" found for service \"web\"`},
		{"pods/none/proxy/x", 404, `pods \"none\" not found`},
		{"pods/pending/proxy/x", 400, "pod pending does not have a host assigned"},
	} {
		t.Run(c.path, func(t *testing.T) {
			res, err := http.Get(at(t, rc, c.path).String())
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Body.Close(); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != c.code || !strings.Contains(string(body), c.body) {
				t.Errorf("%d %s, want %d %s", res.StatusCode, body, c.code, c.body)
			}
		})
	}
}
