//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"rutter.dev/rutter/tests/e2e/plane"
)

// need is how many ready pods of a selector there must be at all times.
type need struct {
	what, namespace, object string
	pods                    labels.Selector
	ready                   int32
	spare                   int32 // pods that there are beyond
}

// vigil follows every change of every pod, one after the other as the API
// server made them, and writes down when a need was not met.
type vigil struct {
	needs []need
	stop  context.CancelFunc
	ended chan struct{}

	mu     sync.Mutex // guards what follows
	pods   map[string]*corev1.Pod
	seen   int64 // the newest version of a pod
	looked int
	broken []string
}

// watchBudgets begins a vigil over all PodDisruptionBudgets, as the disruption
// controller counts (countHealthyPods in pkg/controller/disruption): pods that
// are ready and not being deleted. It is of its own making, since a rolling
// restart asks no budget, and a budget's status skips states.
func watchBudgets(t *testing.T, p *plane.Plane, more ...need) *vigil {
	t.Helper()
	v := &vigil{needs: append(budgetNeeds(t, p), more...), ended: make(chan struct{}), pods: map[string]*corev1.Pod{}}
	core := client(t, p).CoreV1().Pods("")
	list, err := core.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		v.pods[key(&list.Items[i])] = &list.Items[i]
	}
	for i := range v.needs {
		v.look(&v.needs[i])
	}
	ctx, stop := context.WithCancel(t.Context())
	w, err := watchtools.NewRetryWatcherWithContext(ctx, list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return core.Watch(ctx, o) },
	})
	if err != nil {
		stop()
		t.Fatal(err)
	}
	v.stop = stop
	go v.follow(w)
	return v
}

// budgetNeeds are what the budgets ask for now, once their controller has
// counted.
func budgetNeeds(t *testing.T, p *plane.Plane) (out []need) {
	t.Helper()
	until(t, "all disruption budgets are counted and hold", func(ctx context.Context) (bool, error) {
		out = nil
		list, err := client(t, p).PolicyV1().PodDisruptionBudgets("").List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		for _, b := range list.Items {
			if b.Status.ObservedGeneration < b.Generation || b.Status.ExpectedPods == 0 || b.Status.CurrentHealthy < b.Status.DesiredHealthy {
				return false, fmt.Errorf("budget %s/%s: %+v", b.Namespace, b.Name, b.Status)
			}
			s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil {
				return false, err
			}
			out = append(out, need{"budget", b.Namespace, b.Name, s, b.Status.DesiredHealthy, b.Status.ExpectedPods - b.Status.DesiredHealthy})
		}
		return true, nil
	})
	return out
}

func key(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func (v *vigil) follow(w watch.Interface) {
	defer close(v.ended)
	for e := range w.ResultChan() {
		pod, ok := e.Object.(*corev1.Pod)
		v.mu.Lock()
		if !ok {
			v.broken = append(v.broken, fmt.Sprintf("the watch of pods broke: %v", e.Object))
			v.mu.Unlock()
			return
		}
		if e.Type == watch.Deleted {
			delete(v.pods, key(pod))
		} else {
			v.pods[key(pod)] = pod
		}
		if n, err := strconv.ParseInt(pod.ResourceVersion, 10, 64); err == nil {
			v.seen = n
		}
		for i := range v.needs {
			if n := &v.needs[i]; n.namespace == pod.Namespace && n.pods.Matches(labels.Set(pod.Labels)) {
				v.look(n)
			}
		}
		v.mu.Unlock()
	}
}

// look counts the pods of one need.
func (v *vigil) look(n *need) {
	v.looked++
	healthy := int32(0)
	for _, pod := range v.pods {
		if pod.Namespace == n.namespace && n.pods.Matches(labels.Set(pod.Labels)) && podReady(pod) {
			healthy++
		}
	}
	if healthy < n.ready {
		v.broken = append(v.broken, fmt.Sprintf("%s %s/%s: %d ready pods at %s, %d needed", n.what, n.namespace, n.object, healthy, time.Now().Format(time.TimeOnly), n.ready))
	}
}

// end fails the test with everything that was not met up to now.
func (v *vigil) end(t *testing.T, p *plane.Plane) {
	t.Helper()
	defer func() { v.stop(); <-v.ended }()
	list, err := client(t, p).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	newest := int64(0)
	for _, pod := range list.Items {
		n, err := strconv.ParseInt(pod.ResourceVersion, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		newest = max(newest, n)
	}
	until(t, "all changes of pods were seen", func(context.Context) (bool, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		return v.seen >= newest, nil
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, b := range slices.Compact(v.broken) {
		t.Error(b)
	}
	if len(v.needs) == 0 || v.looked <= 2*len(v.needs) {
		t.Errorf("%d needs were looked at only %d times", len(v.needs), v.looked)
	}
	t.Logf("%d needs, looked at %d times", len(v.needs), v.looked)
}
