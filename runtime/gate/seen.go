package gate

import (
	"context"
	"fmt"
	"sync"

	"rutter.dev/rutter/runtime/cluster"
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
