package sweep

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/sim"
)

// rolling is how many workloads were being rolled out at one instant.
type rolling struct {
	n    int
	when string // what had just been sent, and what was rolling
}

// limits notes how much of the mesh a run disturbs at once: in each namespace,
// and "" for all of them. Only a request of the run can make it more, so that
// the instants after its requests are all that count.
//
// A rollback has limits of its own, and what a stopped run had begun may still
// be rolling when it begins.
type limits struct {
	most, undone map[string]rolling // in a run, in a rollback
	undoing      bool               // the present process rolls back
	wave         *event.WaveStarted // that is under way in it
}

func (l *limits) fork() limits {
	return limits{most: maps.Clone(l.most), undone: maps.Clone(l.undone), undoing: l.undoing, wave: l.wave}
}

// sent is called after a request that may change something.
func (l *limits) sent(w *world, s sent, body []byte) {
	if !s.took() || !strings.Contains(s.path, "/apis/apps/v1/") && !strings.HasSuffix(s.path, "/eviction") {
		return
	}
	if l.most == nil {
		l.most, l.undone = map[string]rolling{}, map[string]rolling{}
	}
	most := l.most
	if l.undoing {
		most = l.undone
	}
	names := rollingNow(w.sim)
	for ns, all := range names {
		if len(all) > most[ns].n {
			most[ns] = rolling{len(all), s.what() + ": " + strings.Join(all, ", ")}
		}
	}
	l.inWave(w, s, body)
}

// inWave demands that a restart is that of a workload of the present wave.
func (l *limits) inWave(w *world, s sent, body []byte) {
	if l.wave == nil || !bytes.Contains(body, []byte(effect.AnnotationRestart)) {
		return
	}
	for _, named := range l.wave.Workloads {
		if ref := w.intents[s.key]; ref != nil && ref.Ref.String() == named {
			return
		}
	}
	w.breaks("%s is restarted in wave %q, which is that of %s", s.path, l.wave.Name, strings.Join(l.wave.Workloads, ", "))
}

// rollingNow are the workloads that are being rolled out, by namespace.
func rollingNow(c *sim.Cluster) map[string][]string {
	out := map[string][]string{}
	c.View(func(v sim.View) {
		for _, r := range []string{"deployments", "statefulsets", "daemonsets"} {
			for _, o := range v.List(schema.GroupResource{Group: "apps", Resource: r}, "") {
				if ready, _, _ := cluster.Ready(o); !ready {
					name := r + "/" + o.GetName()
					out[""] = append(out[""], o.GetNamespace()+"/"+name)
					out[o.GetNamespace()] = append(out[o.GetNamespace()], name)
				}
			}
		}
	})
	return out
}

// limited demands that at no instant more was being rolled out than ever in the
// undisturbed run, or, in a rollback, than in the rollback of that.
func (ref *reference) limited(w *world) {
	over(w, w.limits.most, "the undisturbed run", func(ns string) int { return ref.rolled[ns].n })
	over(w, w.limits.undone, "the undisturbed run and its rollback", func(ns string) int { return ref.rolled[ns].n + ref.undone[ns].n })
}

func over(w *world, most map[string]rolling, than string, limit func(string) int) {
	for _, ns := range slices.Sorted(maps.Keys(most)) {
		got := most[ns]
		if got.n <= limit(ns) {
			continue
		}
		where := "in namespace " + ns
		if ns == "" {
			where = "at once"
		}
		w.breaks("%s", fmt.Sprintf("%d workloads were rolling %s, and no more than %d in %s: after %s", got.n, where, limit(ns), than, got.when))
	}
}

// undo rolls the undisturbed run back, for the limits of rollbacks.
func (ref *reference) undo(w *world) error {
	if _, err := w.rollback(plan{}); err != nil {
		return fmt.Errorf("%s: the rollback of the undisturbed run: %w", w.s.Name, err)
	}
	ref.undone = w.limits.undone
	return nil
}
