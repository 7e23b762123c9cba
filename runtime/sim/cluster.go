package sim

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"rutter.dev/rutter/runtime/sim/rbac"
)

// Options says what a simulated cluster is made of. The zero value is an empty
// cluster with no controllers.
type Options struct {
	// Clock0 is the virtual time of the cluster's birth; zero means
	// 2026-01-01T00:00:00Z.
	Clock0 time.Time
	// Seed determines every uid and every generated name.
	Seed int64
	// KubernetesVersion is what /version answers, "v1.34.0" when empty.
	KubernetesVersion string
	// Controllers reconcile after every committed write and as time passes.
	Controllers []Controller
	// Injector performs sidecar injection; nil leaves injection out.
	Injector Injector
	// InjectOnLoad also injects pods that Load brings in.
	InjectOnLoad bool
	// Anonymous makes requests without credentials those of system:anonymous,
	// to which hardly anything is allowed. Otherwise they are the
	// administrator's.
	Anonymous bool
	// WebhookAddress says where the webhooks at a host ("NAME.NAMESPACE.svc:PORT"
	// or "HOST:PORT") are to be called over HTTPS; false for those that are not.
	// Without it nothing outside the process is ever called: a webhook that
	// nobody answers for (HandleWebhook) lets everything pass as long as its
	// Service has a ready pod.
	WebhookAddress func(host string) (addr string, ok bool)
	// MaxRequests bounds the request log; zero means 100,000. When it is full
	// the older half is dropped.
	MaxRequests int
	// Connector answers connections to pods, in clones too, until OnConnect sets
	// another; without one they are refused.
	Connector Connector
	// Backing makes the cluster a twin of the one behind it, which serves
	// Served. It has no objects of its own then.
	Backing Backing
	Served  []Served
}

// Cluster is a simulated Kubernetes cluster. It is safe for concurrent use:
// one lock orders all requests, controllers and the passing of time.
type Cluster struct {
	// writing is held by whoever may change what is stored, and taken before
	// mu. A write that waits for somebody outside (a webhook) lets go of mu and
	// keeps writing: others may read meanwhile, and find nothing changed after.
	writing sync.Mutex
	mu      sync.Mutex

	opts Options
	st   *store
	reg  *registry
	now  time.Time
	seq  uint64 // numbers uids and generated names; part of the persisted state

	sched    scheduler
	watchers map[*watcher]bool
	managers map[managerKey]*managedfields.FieldManager
	alike    map[string]map[string]any                  // see trackNew
	blanks   map[schema.GroupVersionKind]map[string]any // see blank
	docs     docCache
	defs     *definitions // shared by clones
	log      *log
	logErr   error // the first error of the log; ends all writing

	births      []bornState      // what the cluster was made with
	tokens      map[string]*User // of AddToken
	policy      *rbac.Policy     // of the stored roles; nil when one changed
	aggregating bool

	faults     []*activeFault
	hooks      []AdmissionHook
	connector  Connector
	webhooks   map[schema.GroupResource][]*webhook // read from the configurations; forgotten when one changes
	policies   *[]policyHook                       // compiled; nil when one changed
	recount    map[string]bool                     // namespaces whose quotas are to be counted
	limit      atomic.Pointer[bucket]              // of SetLimit
	conns      connections                         // of Serve
	speed      speed                               // of Serve
	isDown     atomic.Bool                         // a restart is going on: downNow, without the lock
	downNow    bool
	upAt       time.Time
	watchFloor uint64                  // watches from before it get 410: the server was restarted
	handlers   map[string]http.Handler // of HandleWebhook
	callers    map[string]*caller      // clients of webhooks
	denials    []DenyRule
	requests   []Request
	requestNo  int
}

// New makes a cluster with the namespaces that every cluster has.
func New(opts Options) (*Cluster, error) {
	c, err := newCluster(opts)
	if err != nil {
		return nil, err
	}
	c.lock()
	defer c.unlock()
	if opts.Backing != nil {
		return c, c.behind(opts.Backing, opts.Served)
	}
	if err := c.bootstrap(); err != nil {
		return nil, err
	}
	c.settle()
	return c, nil
}

// lock is taken to change what is stored.
func (c *Cluster) lock() {
	c.writing.Lock()
	c.mu.Lock()
}

func (c *Cluster) unlock() {
	c.mu.Unlock()
	c.writing.Unlock()
}

// outside runs f, which waits for somebody else, without the lock of readers.
// The caller holds both locks.
func (c *Cluster) outside(f func()) {
	c.mu.Unlock()
	defer c.mu.Lock()
	f()
}

// clock0 is the usual time of a cluster's birth.
var clock0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newCluster(opts Options) (*Cluster, error) {
	if opts.Clock0.IsZero() {
		opts.Clock0 = clock0
	}
	if opts.KubernetesVersion == "" {
		opts.KubernetesVersion = "v1.34.0"
	}
	if opts.MaxRequests <= 0 {
		opts.MaxRequests = 100_000
	}
	c := &Cluster{
		opts: opts, st: newStore(), reg: newRegistry(), now: opts.Clock0.UTC().Truncate(time.Second),
		watchers: map[*watcher]bool{}, managers: map[managerKey]*managedfields.FieldManager{}, alike: map[string]map[string]any{}, blanks: map[schema.GroupVersionKind]map[string]any{},
		webhooks: map[schema.GroupResource][]*webhook{}, defs: &definitions{}, connector: opts.Connector,
	}
	c.sched.init(opts.Controllers)
	if opts.Backing != nil {
		return c, nil
	}
	return c, c.beBorn()
}

// bootstrap creates what the API server and the controller manager create by
// themselves in a new cluster.
func (c *Cluster) bootstrap() error {
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		ns := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
		}}
		if _, err := c.create(grNamespaces, "", ns, writeOptions{manager: "kube-apiserver", untracked: true}); err != nil {
			return fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	svc := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": "kubernetes", "labels": map[string]any{"component": "apiserver", "provider": "kubernetes"}},
		"spec": map[string]any{
			"clusterIP": "10.96.0.1",
			"ports":     []any{map[string]any{"name": "https", "port": int64(443), "targetPort": int64(6443)}},
		},
	}}
	if _, err := c.create(grServices, "default", svc, writeOptions{manager: "kube-apiserver", untracked: true}); err != nil {
		return fmt.Errorf("service default/kubernetes: %w", err)
	}
	return nil
}

// Resources that the server itself has to know.
var (
	grNamespaces      = schema.GroupResource{Resource: "namespaces"}
	grServices        = schema.GroupResource{Resource: "services"}
	grSecrets         = schema.GroupResource{Resource: "secrets"}
	grNodes           = schema.GroupResource{Resource: "nodes"}
	grPods            = schema.GroupResource{Resource: "pods"}
	grConfigMaps      = schema.GroupResource{Resource: "configmaps"}
	grServiceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	grClusterRoles    = schema.GroupResource{Group: rbac.Group, Resource: "clusterroles"}
	grEvents          = schema.GroupResource{Resource: "events"}
	grDeployments     = schema.GroupResource{Group: "apps", Resource: "deployments"}
	grPDBs            = schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}
	grCRDs            = schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}
	grMutating        = schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"}
	grValidating      = schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"}
)

// commit stores obj and tells everybody who has to know. It is the only way
// into the store beside drop.
func (c *Cluster) commit(k objectKey, obj *unstructured.Unstructured) change {
	ch := c.st.put(k, obj)
	c.committed(ch)
	return ch
}

// drop removes a stored object and tells everybody who has to know.
func (c *Cluster) drop(k objectKey) *unstructured.Unstructured {
	c.st.needDependents(k)
	ch := c.st.remove(k)
	c.committed(ch)
	c.collect(ch)
	return ch.next.obj
}

func (c *Cluster) committed(ch change) {
	c.persist(ch)
	delete(c.webhooks, ch.key.gr)
	if ch.key.gr == grPolicies || ch.key.gr == grPolicyBindings {
		c.policies = nil
	}
	for w := range c.watchers {
		w.offer(ch)
	}
	c.sched.changed(c, ch)
	c.quotaTouched(ch.key.namespace)
	if ch.key.gr == grCRDs {
		c.crdChanged(ch)
	}
	if ch.key.gr.Group == rbac.Group {
		c.rolesChanged(ch)
	}
}

// Objects returns copies of all stored objects, sorted by group, resource,
// namespace and name, but for the roles that every cluster is born with.
func (c *Cluster) Objects() []*unstructured.Unstructured {
	out := c.Stored()
	for i, o := range out {
		out[i] = o.DeepCopy()
	}
	return out
}

// Stored is Objects without the copies, to be read only. A stored object is never
// changed, only replaced, so that what was given stays as it was.
func (c *Cluster) Stored() []*unstructured.Unstructured {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := c.allKeys()
	out := make([]*unstructured.Unstructured, len(keys))
	for i, k := range keys {
		out[i] = c.st.get(k).obj
	}
	return out
}

// allKeys are the keys of all objects but those that are as the cluster was
// born with them.
func (c *Cluster) allKeys() []objectKey {
	var keys []objectKey
	for gr, t := range c.st.tables {
		for _, k := range t.keys {
			if gr.Group == rbac.Group && t.items[k].born {
				continue
			}
			keys = append(keys, objectKey{gr, k.namespace, k.name})
		}
	}
	sortKeys(keys)
	return keys
}
