package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"rutter.dev/rutter/runtime/env"
)

// defaultMaxInFlight is below the 49 seats that API priority and fairness gives
// a global-default level (FACTS §2).
const (
	defaultMaxInFlight    = 32
	defaultRequestTimeout = time.Minute
)

// ClientOptions tune a Client. The zero value is good.
type ClientOptions struct {
	MaxInFlight    int           // requests in flight, watches apart; 0 means 32
	RequestTimeout time.Duration // of one request, watches apart; 0 means one minute
	Version        string        // of rutter, for the user agent
	Namespace      string        // default namespace, see Client.Namespace
	Warn           func(string)  // server warnings (deprecated APIs); nil drops them
	Record         func(Asked)   // told of every request, on the goroutine that makes it; nil keeps no log
	// Watch makes waits watch on a virtual clock too, where they poll otherwise:
	// what happens to watches can then be tried there. Time passes whenever the
	// watches are quiet.
	Watch bool
	// Store is the cluster itself, if it lives in this process; see there.
	Store Store
	// Distant: what lives in this process hands dry-runs on to a server elsewhere.
	Distant bool
}

// Client is the Writer over client-go. Safe for concurrent use.
type Client struct {
	name      string
	namespace string
	config    *rest.Config
	clock     env.Clock
	timeout   time.Duration
	record    func(Asked)
	watches   bool
	store     Store
	distant   bool

	dyn  dynamic.Interface
	meta metadata.Interface
	disc *discovery.DiscoveryClient
	http http.RoundTripper // under all of them
	api  catalogue

	largest atomic.Int32 // how the server is asked for large lists: see givesWhole

	uidMu sync.Mutex
	uid   string
}

var _ Writer = (*Client)(nil)

// New makes a client of the cluster behind rc, named contextName. It sends
// nothing. rc is copied; its limits and retries are replaced by this package's.
func New(rc *rest.Config, contextName string, clock env.Clock, o ClientOptions) (*Client, error) {
	if clock == nil {
		return nil, fmt.Errorf("cluster %s: a clock is needed", contextName)
	}
	cfg := rest.CopyConfig(rc)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, -1, nil
	cfg.Timeout = 0 // would end watches too; requests have their own limit
	cfg.UserAgent = "rutter/" + orElse(o.Version, "dev")
	cfg.WarningHandler, cfg.WarningHandlerWithContext = warnings(o.Warn), nil
	n := o.MaxInFlight
	if n <= 0 {
		n = defaultMaxInFlight
	}
	slots := make(chan struct{}, n)
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		out := http.RoundTripper(&transport{next: rt, slots: slots, clock: clock})
		if o.Record != nil {
			out = recorder{next: out, record: o.Record}
		}
		return out
	})
	c := &Client{
		name: contextName, namespace: orElse(o.Namespace, "default"), config: cfg, clock: clock,
		timeout: o.RequestTimeout, record: o.Record, watches: o.Watch, store: o.Store, distant: o.Distant,
	}
	if c.timeout <= 0 {
		c.timeout = defaultRequestTimeout
	}
	if err := c.connect(); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", contextName, err)
	}
	return c, nil
}

func (c *Client) connect() error {
	hc, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return err
	}
	if c.dyn, err = dynamic.NewForConfigAndClient(c.config, hc); err != nil {
		return err
	}
	if c.meta, err = metadata.NewForConfigAndClient(c.config, hc); err != nil {
		return err
	}
	if c.disc, err = discovery.NewDiscoveryClientForConfigAndClient(c.config, hc); err != nil {
		return err
	}
	c.http = hc.Transport
	c.api.load = c.disc.ServerGroupsAndResources
	return nil
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// warnHandler passes server warnings on.
type warnHandler func(string)

// HandleWarningHeader implements rest.WarningHandler. Only code 299 is the API
// server's (RFC 7234 §5.5).
func (w warnHandler) HandleWarningHeader(code int, _, text string) {
	if code == 299 && text != "" {
		w(text)
	}
}

func warnings(f func(string)) rest.WarningHandler {
	if f == nil {
		return rest.NoWarnings{}
	}
	return warnHandler(f)
}

// Context implements Reader.
func (c *Client) Context() string { return c.name }

// Namespace is the namespace that the kubeconfig's context (or --namespace)
// names, for objects that give none.
func (c *Client) Namespace() string { return c.namespace }

// Server is the API server's address.
func (c *Client) Server() string { return c.config.Host }

// RESTConfig is a copy of the configuration with this package's transport rules
// (no resent mutations, bounded requests). It can write: only the engine and
// what the engine plugs in may hold it. Others take ReadOnlyConfig.
func (c *Client) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// ReadOnlyConfig is RESTConfig with a guard that refuses everything but reads,
// dry-runs and access reviews of oneself (ReadOnlyError). It is for libraries
// that insist on making their own client: Istio's.
func (c *Client) ReadOnlyConfig() *rest.Config { return guarded(c.config) }

// subject names a request in errors: the object, or what was asked of the server.
func (c *Client) request(ctx context.Context, subject string, ref Ref, x *exchange) request {
	return request{subject: subject, ref: ref, server: c.config.Host, x: x, caller: ctx}
}

// begin gives a request its record and its time limit.
func (c *Client) begin(ctx context.Context) (context.Context, *exchange, context.CancelFunc) {
	ctx, x := withExchange(ctx)
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	return ctx, x, cancel
}

// resourceOf is the dynamic client for ref's kind, in its namespace.
func (c *Client) resourceOf(ctx context.Context, ref Ref) (dynamic.ResourceInterface, Resource, error) {
	res, err := c.ResourceFor(ctx, ref.GVK())
	if err != nil {
		return nil, Resource{}, fmt.Errorf("%s: %w", ref, err)
	}
	if !res.Namespaced {
		return c.dyn.Resource(res.GVR), res, nil
	}
	if ref.Namespace == "" {
		return nil, Resource{}, &RequestError{
			Subject: ref.String(), Kind: ErrInvalid,
			Message: "this kind lives in a namespace, and none is given",
		}
	}
	return c.dyn.Resource(res.GVR).Namespace(ref.Namespace), res, nil
}

// ParseRef splits a name as kubectl takes it, "deploy/web" or
// "virtualservices.networking.istio.io/web" or just "pods", into the resource
// and the object's name ("" if there is none).
func ParseRef(name string) (resource, object string, err error) {
	resource, object, slash := strings.Cut(strings.TrimSpace(name), "/")
	switch {
	case resource == "":
		return "", "", fmt.Errorf("%q: no resource is named: write it as in \"deploy/istiod\"", name)
	case slash && object == "":
		return "", "", fmt.Errorf("%q: no object is named after the slash: write it as in \"deploy/istiod\"", name)
	case strings.Contains(object, "/"):
		return "", "", fmt.Errorf("%q: one slash at most, as in \"deploy/istiod\"; the namespace is given apart", name)
	}
	return resource, object, nil
}

// String names the resource as an error message does: "deployments.apps".
func (r Resource) String() string { return r.GVR.GroupResource().String() }

// Can reports whether the server offers the verb on the resource.
func (r Resource) Can(verb string) bool {
	for _, v := range r.Verbs {
		if v == verb {
			return true
		}
	}
	return false
}

// ResourceRef is the Ref of the named object of a resource.
func (r Resource) ResourceRef(namespace, name string) Ref {
	if !r.Namespaced {
		namespace = ""
	}
	return Ref{Group: r.GVK.Group, Version: r.GVK.Version, Kind: r.GVK.Kind, Namespace: namespace, Name: name}
}

// gvOf parses the groupVersion of a discovery list.
func gvOf(l *metav1.APIResourceList) (schema.GroupVersion, error) {
	return schema.ParseGroupVersion(l.GroupVersion)
}
