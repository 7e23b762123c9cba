// Package istiod is what listens in the istiod pods of a simulated cluster: the
// monitoring and debug ports (15014 and 8080) and the debug types of the xDS
// ports (15012 and 15010), answered as istiod answers them, so that the real
// istioctl can ask for versions and the proxies' synchronization. Clients come
// by portforward or through the API server's proxy.
//
// It serves no configuration: a real proxy would get nothing here.
package istiod

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/sim/streams"
)

// The ports of an istiod.
const (
	portMonitoring = 15014
	portHTTP       = 8080
	portXDS        = 15012 // over TLS, with a token
	portXDSPlain   = 15010
)

// Pods implements streams.Pods: the istiod pods have their ports, the others
// have none. It is safe for concurrent use.
type Pods struct {
	view    func(func(sim.View))
	istiods *mesh.Istiods
	http    *listener
	tls     *listener
	plain   *listener
	stop    func()
}

var _ streams.Pods = (*Pods)(nil)

// New starts what listens in the istiod pods of a cluster. Close ends it.
func New(c *sim.Cluster, istiods *mesh.Istiods) (*Pods, error) {
	cert, err := certificate()
	if err != nil {
		return nil, fmt.Errorf("certificate of the simulated istiod: %w", err)
	}
	p := &Pods{view: c.View, istiods: istiods, http: newListener(), tls: newListener(), plain: newListener()}
	web := &http.Server{
		Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, origin{}, conn.RemoteAddr())
		},
	}
	secure := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})))
	discovery.RegisterAggregatedDiscoveryServiceServer(secure, &xds{pods: p, authenticated: true})
	plain := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(plain, &xds{pods: p})
	var running sync.WaitGroup
	for _, serve := range []func() error{
		func() error { return web.Serve(p.http) },
		func() error { return secure.Serve(p.tls) },
		func() error { return plain.Serve(p.plain) },
	} {
		running.Go(func() {
			err := serve()
			_ = err // that it was closed
		})
	}
	p.stop = func() {
		_ = web.Close()
		secure.Stop()
		plain.Stop()
		running.Wait()
	}
	return p, nil
}

// Close ends all connections and waits until nothing runs any more.
func (p *Pods) Close() error {
	p.stop()
	return nil
}

// Dial implements streams.Pods.
func (p *Pods) Dial(ctx context.Context, pod *unstructured.Unstructured, port int) (net.Conn, error) {
	if pod.GetLabels()["app"] != "istiod" {
		return nil, streams.ErrRefused
	}
	l := map[int]*listener{portMonitoring: p.http, portHTTP: p.http, portXDS: p.tls, portXDSPlain: p.plain}[port]
	if l == nil {
		return nil, streams.ErrRefused
	}
	return l.dial(ctx, address{namespace: pod.GetNamespace(), name: pod.GetName(), port: port, outside: streams.FromOutside(ctx)})
}

// Exec implements streams.Pods with the few commands that need no files.
func (p *Pods) Exec(_ context.Context, pod *unstructured.Unstructured, container string, command []string, in io.Reader, out, errs io.Writer) (int, error) {
	if len(command) == 0 {
		return 0, errors.New("no command")
	}
	switch args := command[1:]; command[0] {
	case "true":
	case "false":
		return 1, nil
	case "echo":
		_, err := fmt.Fprintln(out, strings.Join(args, " "))
		return 0, err
	case "hostname":
		_, err := fmt.Fprintln(out, pod.GetName())
		return 0, err
	case "cat":
		if len(args) > 0 || in == nil {
			_, err := fmt.Fprintf(errs, "cat: %s: No such file or directory\n", strings.Join(args, " "))
			return 1, err
		}
		_, err := io.Copy(out, in)
		return 0, err
	default:
		return 0, fmt.Errorf("exec: %q: executable file not found in $PATH of container %s, which is simulated", command[0], container)
	}
	return 0, nil
}

// self is the istiod pod that a connection leads to, nil when it is gone, its
// proxies, and the virtual time.
func (p *Pods) self(to address) (pod *unstructured.Unstructured, proxies []mesh.Proxy, now time.Time) {
	p.view(func(v sim.View) {
		now = v.Now()
		if pod = v.Get(grPods, to.namespace, to.name); pod != nil {
			proxies = p.istiods.Proxies(v, pod)
		}
	})
	return pod, proxies, now
}

// version is the build of an istiod, from the image of its discovery
// container. Git knows nothing of a simulated one.
func version(pod *unstructured.Unstructured) build {
	b := build{Version: "unknown", Revision: strings.Repeat("0", 40), Golang: "unknown", Status: "Simulated", Tag: "unknown"}
	list, _, _ := unstructured.NestedSlice(pod.Object, "spec", "containers")
	i := slices.IndexFunc(list, func(x any) bool { m, _ := x.(map[string]any); return m["name"] == "discovery" })
	if i >= 0 {
		image, _, _ := unstructured.NestedString(list[i].(map[string]any), "image")
		b.Version = mesh.ImageVersion(image)
		b.Tag = b.Version
	}
	return b
}

// build is istiod's pkg/version.BuildInfo.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Golang   string `json:"golang_version"`
	Status   string `json:"status"`
	Tag      string `json:"tag"`
}

func (b build) String() string { return b.Version + "-" + b.Revision + "-" + b.Status }

// certificate makes a certificate of its own for the xDS port, which nobody
// verifies: istioctl cannot, and skips it.
func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"istiod." + mesh.SystemNamespace + ".svc"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
