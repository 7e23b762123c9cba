package restart

import (
	"rutter.dev/rutter/runtime/mesh"
)

// ledger says what the disruption budgets can still bear. It is made anew
// whenever something may be begun. Rolling restarts do not go through the
// eviction API, so that nobody but rutter holds them to a budget (GUIDE §2 row 12).
type ledger struct {
	read    func(namespace string) ([]mesh.Budget, error)
	seen    map[string]bool        // namespaces that were read
	budgets map[string]mesh.Budget // by namespace/name
	taken   map[string]int         // what the restarts in flight can cost at worst
}

func (d *driver) ledger() *ledger {
	l := &ledger{seen: map[string]bool{}, budgets: map[string]mesh.Budget{}, taken: map[string]int{}}
	l.read = func(ns string) ([]mesh.Budget, error) { return mesh.Budgets(d.c.Ctx, d.c.Reader, ns) }
	for _, it := range d.flight {
		l.take(it.t)
	}
	return l
}

// know reads the budgets of a namespace, once. Of the thousand namespaces that
// still wait, only those are asked for whose turn it could be.
func (l *ledger) know(namespace string) error {
	if l.seen[namespace] {
		return nil
	}
	found, err := l.read(namespace)
	if err != nil {
		return err
	}
	l.seen[namespace] = true
	for _, b := range found {
		l.budgets[b.Ref.Namespace+"/"+b.Ref.Name] = b
	}
	return nil
}

func (l *ledger) take(t *target) {
	for _, name := range t.Budgets {
		l.taken[t.Ref.Namespace+"/"+name] += t.Down
	}
}

// blocks returns the budget that cannot bear t beside what is in flight, ""
// if all can. A workload that needs more than a budget ever gives is let
// through alone: RUT013 says then what is wrong with it.
func (l *ledger) blocks(t *target) (string, error) {
	if t.Down == 0 || len(t.Budgets) == 0 {
		return "", nil
	}
	if err := l.know(t.Ref.Namespace); err != nil {
		return "", err
	}
	for _, name := range t.Budgets {
		key := t.Ref.Namespace + "/" + name
		b, ok := l.budgets[key]
		taken, room, allowed := l.taken[key], b.Expected-b.Needed, b.Allowed()
		switch {
		case !ok:
		case taken > 0 && taken+t.Down > room:
			return name, nil
		case allowed < t.Down && (taken > 0 || t.Down <= room || allowed < room):
			return name, nil
		}
	}
	return "", nil
}
