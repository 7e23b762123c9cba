package sim

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/net"
)

// Connector answers the subresources of pods and Services that are connections
// to what runs in a pod, not documents: portforward, exec, and proxy. The API
// server passes these on to the kubelet; so does the simulated one.
type Connector interface {
	// Connect answers the request. The caller may make it, and the pod is
	// there. It runs without the cluster's lock, until the connection ends or
	// the request's context does.
	Connect(w http.ResponseWriter, r *http.Request, to Connection)
}

// Connection is what a request wants to be connected to.
type Connection struct {
	Pod         *unstructured.Unstructured // a copy
	Subresource string                     // portforward, exec or proxy
	// Scheme, Port and Path are those of a proxied request. Port 0 is the
	// first port of the pod.
	Scheme string
	Port   int
	Path   string
	// View reads the cluster that the pod is in: a connector may serve several.
	View func(func(View))
}

// View is what may be read of a cluster, at one instant. What it returns is
// shared: DeepCopy before changing it.
type View interface {
	// Now is the virtual time.
	Now() time.Time
	Get(gr schema.GroupResource, namespace, name string) *unstructured.Unstructured
	List(gr schema.GroupResource, namespace string) []*unstructured.Unstructured
}

// View calls f with the cluster held still. f must not call the cluster.
func (c *Cluster) View(f func(View)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&world{c: c})
}

// OnConnect sets what answers connections to pods; without it they are refused
// as by a kubelet that cannot be reached.
func (c *Cluster) OnConnect(x Connector) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connector = x
}

// connects reports whether a request is for a connection.
func (q *query) connects() bool {
	switch q.res.gr() {
	case grPods:
		return slices.Contains([]string{"portforward", "exec", "proxy"}, q.subresource)
	case grServices:
		return q.subresource == "proxy"
	}
	return false
}

// connect answers a request for a connection, and returns the code that the
// request log shows.
func (c *Cluster) connect(w http.ResponseWriter, r *http.Request, q *query, body []byte) int {
	c.mu.Lock()
	to, err := c.connection(r, q)
	x := c.connector
	c.mu.Unlock()
	if err == nil && x == nil {
		err = apierrors.NewInternalError(fmt.Errorf("error dialing backend: pod %s/%s has no simulated kubelet", q.namespace, q.name))
	}
	if err != nil {
		writeError(w, err)
		return statusCode(err)
	}
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	x.Connect(w, r, to)
	return http.StatusOK
}

// connection finds the pod that is meant. The lock is held.
func (c *Cluster) connection(r *http.Request, q *query) (Connection, error) {
	to := Connection{Subresource: q.subresource, View: c.View}
	name, port := q.name, ""
	if q.subresource == "proxy" {
		var valid bool
		if to.Scheme, name, port, valid = net.SplitSchemeNamePort(q.name); !valid {
			return to, apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", strings.TrimSuffix(q.res.plural, "s"), q.name))
		}
		_, to.Path, _ = strings.Cut(r.URL.Path, "/"+q.name+"/proxy")
	}
	e := c.st.get(objectKey{q.res.gr(), q.namespace, name})
	if e == nil {
		return to, apierrors.NewNotFound(q.res.gr(), name)
	}
	pod := e.obj
	if q.res.gr() == grServices {
		var err error
		if pod, port, err = c.backend(e.obj, port); err != nil {
			return to, err
		}
	}
	to.Pod = pod.DeepCopy()
	if node, _, _ := unstructured.NestedString(pod.Object, "spec", "nodeName"); node == "" {
		return to, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.GetName()))
	}
	if _, err := fmt.Sscanf(port, "%d", &to.Port); port != "" && err != nil {
		return to, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", q.name))
	}
	return to, nil
}

// backend is a ready pod behind a Service and the port of it that a port of
// the Service, by number or name, leads to.
func (c *Cluster) backend(svc *unstructured.Unstructured, want string) (*unstructured.Unstructured, string, error) {
	ports, _, _ := unstructured.NestedSlice(svc.Object, "spec", "ports")
	for i, x := range ports {
		p, _ := x.(map[string]any)
		number := fmt.Sprint(p["port"])
		if want != number && want != fmt.Sprint(p["name"]) && (want != "" || i > 0) {
			continue
		}
		if pod := c.readyPod(svc); pod != nil {
			return pod, targetPort(pod, p), nil
		}
		return nil, "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", svc.GetName()))
	}
	return nil, "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", want, svc.GetName()))
}

// readyPod is the first ready pod that a Service selects, or nil.
func (c *Cluster) readyPod(svc *unstructured.Unstructured) *unstructured.Unstructured {
	raw, _ := svc.Object["spec"].(map[string]any)
	selector, _ := raw["selector"].(map[string]any)
	if len(selector) == 0 {
		return nil
	}
	for _, pod := range (&world{c: c}).List(grPods, svc.GetNamespace()) {
		labels := pod.GetLabels()
		all := true
		for k, v := range selector {
			all = all && labels[k] == v
		}
		if all && podReady(pod) {
			return pod
		}
	}
	return nil
}

// targetPort resolves a Service's port to a pod's.
func targetPort(pod *unstructured.Unstructured, port map[string]any) string {
	name, named := port["targetPort"].(string)
	if !named {
		if t := port["targetPort"]; t != nil {
			return fmt.Sprint(t)
		}
		return fmt.Sprint(port["port"])
	}
	for _, field := range []string{"containers", "initContainers"} {
		list, _, _ := unstructured.NestedSlice(pod.Object, "spec", field)
		for _, x := range list {
			container, _ := x.(map[string]any)
			ports, _ := container["ports"].([]any)
			for _, y := range ports {
				if p, _ := y.(map[string]any); p["name"] == name {
					return fmt.Sprint(p["containerPort"])
				}
			}
		}
	}
	return fmt.Sprint(port["port"])
}
