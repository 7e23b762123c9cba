package gate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"rutter.dev/rutter/runtime/cluster"
)

// roomsAge is how long what was read of nodes and pods is good for in live
// judgements: to list all pods for each of a thousand restarts would take longer
// than the restarts. What the run itself began meanwhile is counted.
const roomsAge = 30 * time.Second

// Rooms is what a run knows of the cluster's free resources. A nil Rooms reads
// anew each time. Safe for concurrent use.
type Rooms struct {
	mu   sync.Mutex
	at   time.Time
	seen *Seen
	last *rooms
	past past
}

// now reads nodes and pods: for a forecast once, live as often as roomsAge says.
func (c *Rooms) now(ctx context.Context, r cluster.Reader, run *Run) (*rooms, error) {
	if c == nil {
		return readRooms(ctx, r, &past{})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := c.last != nil && run.Now.Sub(c.at) < roomsAge
	if run.Forecast {
		fresh = c.last != nil && c.seen == run.Seen
	}
	if fresh {
		return c.last, nil
	}
	got, err := readRooms(ctx, r, &c.past)
	if err == nil {
		c.last, c.at, c.seen = got, run.Now, run.Seen
	}
	return got, err
}

// rooms are the nodes with what is free on each.
type rooms struct {
	mu    sync.Mutex
	nodes []*node
	// sizes are the largest requests of the running pods of each workload: what
	// injection adds is not in its template.
	sizes map[string]corev1.ResourceList
}

type node struct {
	*corev1.Node
	free corev1.ResourceList
}

// readRooms lists nodes and pods. Pods are paged, projected and dropped.
func readRooms(ctx context.Context, r cluster.Reader, before *past) (*rooms, error) {
	out := &rooms{sizes: map[string]corev1.ResourceList{}}
	byName := map[string]*node{}
	nodes, err := r.ResourceFor(ctx, schema.GroupVersionKind{Version: "v1", Kind: "Node"})
	if err != nil {
		return nil, err
	}
	err = r.List(ctx, nodes, cluster.ListOptions{Lean: true}, func(o *cluster.Object) error {
		n, err := nodeOf(o)
		if err == nil {
			byName[n.Name] = n
			out.nodes = append(out.nodes, n)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	pods, err := r.ResourceFor(ctx, podKind)
	if err != nil {
		return nil, err
	}
	var waiting []corev1.ResourceList
	now := make(map[types.UID]occupant, len(before.pods))
	err = r.List(ctx, pods, cluster.ListOptions{Lean: true}, func(o *cluster.Object) error {
		p, err := before.occupant(o)
		if err != nil {
			return fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
		now[o.GetUID()] = p
		if p.over {
			return nil
		}
		if p.workload != "" {
			out.sizes[p.workload] = larger(out.sizes[p.workload], p.asks)
		}
		if n := byName[p.node]; n != nil {
			n.take(p.asks)
		} else if p.node == "" {
			waiting = append(waiting, p.asks)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	before.pods = now
	for _, asks := range waiting { // they are first in the scheduler's queue
		out.place(&shape{asks: asks, pod: &corev1.Pod{}})
	}
	return out, nil
}

func nodeOf(o *cluster.Object) (*node, error) {
	n := &corev1.Node{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, n); err != nil {
		return nil, fmt.Errorf("%s: %w", cluster.RefOf(o), err)
	}
	if n.Status.Allocatable == nil {
		return nil, fmt.Errorf("%s: what is allocatable on it is not known", cluster.RefOf(o))
	}
	n.Status.Images, n.ManagedFields = nil, nil
	return &node{Node: n, free: n.Status.Allocatable.DeepCopy()}, nil
}

// take reserves what a pod asks for, and its place.
func (n *node) take(asks corev1.ResourceList) {
	for name, q := range asks {
		free := n.free[name]
		free.Sub(q)
		n.free[name] = free
	}
}

func larger(a, b corev1.ResourceList) corev1.ResourceList {
	if a == nil {
		return maps.Clone(b)
	}
	for name, q := range b {
		if old, ok := a[name]; !ok || q.Cmp(old) > 0 {
			a[name] = q
		}
	}
	return a
}

func (r *rooms) running(ref cluster.Ref) corev1.ResourceList {
	return r.sizes[ref.Namespace+"/"+ref.Name]
}

// shape is a pod as the scheduler and the quotas see it.
type shape struct {
	pod    *corev1.Pod
	asks   corev1.ResourceList
	sample *cluster.Object // for the quotas: it asks for all of asks
}

// shapeOf is a pod of the template, as large as those that run already.
func shapeOf(template map[string]any, running corev1.ResourceList) (*shape, error) {
	asks, err := requestsOf(template["spec"])
	if err != nil {
		return nil, err
	}
	s := &shape{pod: &corev1.Pod{}, asks: larger(maps.Clone(asks), running)}
	sample := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": runtime.DeepCopyJSONValue(template["spec"])}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(sample, s.pod); err != nil {
		return nil, err
	}
	s.sample = &cluster.Object{Object: sample}
	return s, s.enlarge(asks)
}

// enlarge adds to the sample what injection will add, as a container that asks
// for it without limits.
func (s *shape) enlarge(own corev1.ResourceList) error {
	more := map[string]any{}
	for name, q := range s.asks {
		q = q.DeepCopy()
		q.Sub(own[name])
		if q.Sign() > 0 && name != corev1.ResourcePods {
			more[string(name)] = q.String()
		}
	}
	if len(more) == 0 {
		return nil
	}
	list, _, err := unstructured.NestedSlice(s.sample.Object, "spec", "containers")
	if err != nil {
		return err
	}
	list = append(list, map[string]any{"name": "istio-proxy", "resources": map[string]any{"requests": more, "limits": runtime.DeepCopyJSON(more)}})
	return unstructured.SetNestedSlice(s.sample.Object, list, "spec", "containers")
}

// fit counts how many of n pods find a node, and says what the next lacks. With
// keep their places count as taken from then on.
func (r *rooms) fit(s *shape, n int, keep bool) (int, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var taken []*node
	for len(taken) < n {
		at := r.place(s)
		if at == nil {
			break
		}
		taken = append(taken, at)
	}
	why := ""
	if len(taken) < n {
		why = r.lacks(s)
	}
	if !keep {
		back := corev1.ResourceList{}
		for name, q := range s.asks {
			q = q.DeepCopy()
			q.Neg()
			back[name] = q
		}
		for _, n := range taken {
			n.take(back)
		}
	}
	return len(taken), why
}

// place finds a node for one pod and takes its room; nil if there is none.
func (r *rooms) place(s *shape) *node {
	for _, n := range r.nodes {
		if n.bears(s.asks) == "" && n.suits(s.pod) {
			n.take(s.asks)
			return n
		}
	}
	return nil
}

// bears names a resource of which the node has too little; "" if it has enough.
func (n *node) bears(asks corev1.ResourceList) string {
	for _, name := range slices.Sorted(maps.Keys(asks)) {
		q := asks[name]
		if free := n.free[name]; q.Sign() > 0 && free.Cmp(q) < 0 {
			return string(name)
		}
	}
	return ""
}

// suits reports whether the pod may run there: a node that is ready and not
// cordoned, whose taints it tolerates, by node selector and required node
// affinity. Affinity to other pods, volumes and host ports are not looked at.
func (n *node) suits(pod *corev1.Pod) bool {
	taints := n.Spec.Taints
	if n.Spec.Unschedulable {
		taints = append(slices.Clone(taints), corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return false
		}
	}
	if _, bad := scheduling.FindMatchingUntoleratedTaint(logr.Discard(), taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false); bad {
		return false
	}
	ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n.Node)
	return ok && err == nil
}

// lacks says why no node takes one more.
func (r *rooms) lacks(s *shape) string {
	short, unsuited := map[string]int{}, 0
	for _, n := range r.nodes {
		switch what := n.bears(s.asks); {
		case !n.suits(s.pod):
			unsuited++
		case what != "":
			short[what]++
		}
	}
	parts := []string{fmt.Sprintf("of %d nodes", len(r.nodes))}
	for _, what := range slices.Sorted(maps.Keys(short)) {
		q := s.asks[corev1.ResourceName(what)]
		parts = append(parts, fmt.Sprintf("%d have less than %s %s free", short[what], q.String(), what))
	}
	if unsuited > 0 {
		parts = append(parts, fmt.Sprintf("%d don't take it (cordoned, not ready, tainted, or not selected)", unsuited))
	}
	return strings.Join(parts, ", ")
}
