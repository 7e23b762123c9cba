package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/mesh"
)

// Seen is what gates saw of the cluster during one judgement, the forecast of a
// call or the live look at one batch of effects: what does not depend on the
// single effect is asked once. A nil Seen asks each time. Safe for concurrent
// use; never kept from one judgement to the next.
type Seen struct {
	mu      sync.Mutex
	id      *string
	planes  []mesh.ControlPlane
	asked   bool // planes were
	budgets map[string][]mesh.Budget
	notes   []knowledge.Found
	looked  bool // for notes
	lists   map[string][]*cluster.Object
	gets    map[string]*cluster.Object
	proxies *[]mesh.Proxy
	shapes  *[]mesh.Template
	brought map[*effect.Effect]bool // brings, of those that were asked about
}

// brings is brings of an effect, which is asked about those before each of
// thousands.
func (s *Seen) brings(e *effect.Effect) bool {
	if s == nil {
		return brings(e)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	does, known := s.brought[e]
	if !known {
		if s.brought == nil {
			s.brought = map[*effect.Effect]bool{}
		}
		does = brings(e)
		s.brought[e] = does
	}
	return does
}

// uid reads the cluster's identity anew, past what the client remembers: the
// address of a connection can come to lead to another cluster.
func (s *Seen) uid(ctx context.Context, r cluster.Reader) (string, error) {
	if s == nil {
		return readUID(ctx, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != nil {
		return *s.id, nil
	}
	uid, err := readUID(ctx, r)
	if err == nil {
		s.id = &uid
	}
	return uid, err
}

func readUID(ctx context.Context, r cluster.Reader) (string, error) {
	ns, err := r.Get(ctx, cluster.Ref{Version: "v1", Kind: "Namespace", Name: "kube-system"})
	if err != nil {
		return "", fmt.Errorf("cluster identity: %w", err)
	}
	return string(ns.GetUID()), nil
}

func (s *Seen) controlPlanes(ctx context.Context, r cluster.Reader) ([]mesh.ControlPlane, error) {
	if s == nil {
		return mesh.ControlPlanes(ctx, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked {
		return s.planes, nil
	}
	planes, err := mesh.ControlPlanes(ctx, r)
	if err == nil {
		s.planes, s.asked = planes, true
	}
	return planes, err
}

func (s *Seen) budgetsIn(ctx context.Context, r cluster.Reader, namespace string) ([]mesh.Budget, error) {
	if s == nil {
		return mesh.Budgets(ctx, r, namespace)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bs, ok := s.budgets[namespace]; ok {
		return bs, nil
	}
	bs, err := mesh.Budgets(ctx, r, namespace)
	if err == nil {
		if s.budgets == nil {
			s.budgets = map[string][]mesh.Budget{}
		}
		s.budgets[namespace] = bs
	}
	return bs, err
}

// upgradeNotes looks for what notes are about. They are the same throughout a
// run.
func (s *Seen) upgradeNotes(ctx context.Context, r cluster.Reader, notes []*knowledge.Note) ([]knowledge.Found, error) {
	if s == nil {
		return knowledge.Look(ctx, r, notes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looked {
		return s.notes, nil
	}
	found, err := knowledge.Look(ctx, r, notes)
	if err == nil {
		s.notes, s.looked = found, true
	}
	return found, err
}

// objects lists a kind once for each set of options; a kind that the server
// does not have has no objects. It is for what there are few of.
func (s *Seen) objects(ctx context.Context, r cluster.Reader, gvk schema.GroupVersionKind, o cluster.ListOptions) ([]*cluster.Object, error) {
	read := func() ([]*cluster.Object, error) {
		res, err := r.ResourceFor(ctx, gvk)
		if errors.Is(err, cluster.ErrNoKind) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		var out []*cluster.Object
		err = r.List(ctx, res, o, func(obj *cluster.Object) error {
			out = append(out, obj)
			return nil
		})
		return out, err
	}
	if s == nil {
		return read()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprintf("%s %+v", gvk, o)
	if out, ok := s.lists[key]; ok {
		return out, nil
	}
	out, err := read()
	if err == nil {
		if s.lists == nil {
			s.lists = map[string][]*cluster.Object{}
		}
		s.lists[key] = out
	}
	return out, err
}

// object reads one object once; nil if there is none.
func (s *Seen) object(ctx context.Context, r cluster.Reader, ref cluster.Ref) (*cluster.Object, error) {
	read := func() (*cluster.Object, error) {
		o, err := r.Get(ctx, ref)
		if errors.Is(err, cluster.ErrNotFound) || errors.Is(err, cluster.ErrNoKind) {
			return nil, nil
		}
		return o, err
	}
	if s == nil {
		return read()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if out, ok := s.gets[ref.ID()]; ok {
		return out, nil
	}
	out, err := read()
	if err == nil {
		if s.gets == nil {
			s.gets = map[string]*cluster.Object{}
		}
		s.gets[ref.ID()] = out
	}
	return out, err
}

// parseSelector reads a label selector.
func parseSelector(m map[string]any) (labels.Selector, error) {
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s); err != nil {
		return nil, err
	}
	return metav1.LabelSelectorAsSelector(&s)
}

func (s *Seen) census(ctx context.Context, r cluster.Reader) ([]mesh.Proxy, error) {
	if s == nil {
		return mesh.Census(ctx, r, mesh.CensusOptions{})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proxies != nil {
		return *s.proxies, nil
	}
	got, err := mesh.Census(ctx, r, mesh.CensusOptions{})
	if err == nil {
		s.proxies = &got
	}
	return got, err
}

func (s *Seen) templates(ctx context.Context, r cluster.Reader) ([]mesh.Template, error) {
	if s == nil {
		return mesh.Templates(ctx, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shapes != nil {
		return *s.shapes, nil
	}
	got, err := mesh.Templates(ctx, r)
	if err == nil {
		s.shapes = &got
	}
	return got, err
}
