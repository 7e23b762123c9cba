package restart

import (
	"rutter.dev/rutter/runtime/mesh"
)

// ledger says what the disruption budgets can still bear. It is made anew
// whenever something may be begun. Rolling restarts do not go through the
// eviction API, so that nobody but rutter holds them to a budget (GUIDE §2 row 12).
type ledger struct {
	budgets map[string]mesh.Budget // by namespace/name
	taken   map[string]int         // what the restarts in flight can cost at worst
}

func (d *driver) ledger() (*ledger, error) {
	l := &ledger{budgets: map[string]mesh.Budget{}, taken: map[string]int{}}
	seen := map[string]bool{}
	for _, it := range d.waiting {
		ns := it.t.Ref.Namespace
		if len(it.t.Budgets) == 0 || it.t.Down == 0 || seen[ns] {
			continue
		}
		seen[ns] = true
		found, err := mesh.Budgets(d.c.Ctx, d.c.Reader, ns)
		if err != nil {
			return nil, err
		}
		for _, b := range found {
			l.budgets[b.Ref.Namespace+"/"+b.Ref.Name] = b
		}
	}
	for _, it := range d.flight {
		l.take(it.t)
	}
	return l, nil
}

func (l *ledger) take(t *target) {
	for _, name := range t.Budgets {
		l.taken[t.Ref.Namespace+"/"+name] += t.Down
	}
}

// blocks returns the budget that cannot bear t beside what is in flight, ""
// if all can. A workload that needs more than a budget ever gives is let
// through alone: RUT013 says then what is wrong with it.
func (l *ledger) blocks(t *target) string {
	if t.Down == 0 {
		return ""
	}
	for _, name := range t.Budgets {
		key := t.Ref.Namespace + "/" + name
		b, ok := l.budgets[key]
		taken, room, allowed := l.taken[key], b.Expected-b.Needed, b.Allowed()
		switch {
		case !ok:
		case taken > 0 && taken+t.Down > room:
			return name
		case allowed < t.Down && (taken > 0 || t.Down <= room || allowed < room):
			return name
		}
	}
	return ""
}
