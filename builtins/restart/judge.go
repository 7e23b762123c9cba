package restart

import (
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

// rolled judges the workload's own status: whether its rollout is through, or
// why it never will be.
func (it *item) rolled() (rolled bool, lost string) {
	o := it.now
	if o == nil || o.GetGeneration() < it.generation {
		return false, "" // gone, which settle reports; or read from before the patch
	}
	annotations, ok := nested(o, "spec", "template", "metadata", "annotations").(map[string]any)
	if !ok || annotations[effect.AnnotationRestart] != it.t.Mark {
		return false, "somebody else changed its pod template while it was restarted: the restart annotation is gone"
	}
	if o.GetKind() == "Rollout" {
		return rolloutReady(o)
	}
	ready, failed, why := cluster.Ready(o)
	if failed {
		return false, why
	}
	return ready, ""
}

// rolloutReady judges an Argo Rollout by the phase that its controller writes.
func rolloutReady(o *cluster.Object) (ready bool, lost string) {
	if text(o, "status", "observedGeneration") != fmt.Sprint(o.GetGeneration()) {
		return false, ""
	}
	switch text(o, "status", "phase") {
	case "Healthy":
		return true, ""
	case "Degraded":
		return false, "the rollout is degraded: " + text(o, "status", "message")
	}
	return false, ""
}

// allRenewed reports whether every pod that stays was made by this restart.
func (it *item) allRenewed(own []*cluster.Object) bool {
	for _, p := range own {
		if !it.t.renewed(p) {
			return false
		}
	}
	return true
}

// state says what a workload that is not ready is waiting for.
func (it *item) state() string {
	if it.now == nil {
		return "it does not exist"
	}
	if _, _, why := cluster.Ready(it.now); why != "" {
		return why
	}
	return "its rollout is not through"
}

// verify looks whether the new pods really have the proxy that the restart was
// for: an injector that still serves the old template, or a webhook that was
// skipped, would otherwise go unnoticed until the end.
func (d *driver) verify(it *item, own []*cluster.Object) error {
	if it.t.To == "" {
		return nil
	}
	for _, p := range own {
		if !it.t.renewed(p) {
			continue
		}
		switch got, ok := proxyOf(p); {
		case !ok:
			return d.lost(it, fmt.Sprintf("pod %s came back without a proxy, expected %s", p.GetName(), it.t.To), own)
		case !got.is(it.t.To):
			return d.lost(it, fmt.Sprintf("pod %s came back with proxy %s, expected %s", p.GetName(), got, it.t.To), own)
		}
	}
	return nil
}

// evict goes on with a workload whose controller replaces pods only when they
// are deleted: one pod at a time, the next when the one before is back.
func (d *driver) evict(it *item, late bool) (bool, error) {
	pods, err := it.t.pods(d.c)
	if err != nil {
		return false, err
	}
	own := staying(pods)
	ready := 0
	for _, p := range own {
		if podReady(p) {
			ready++
		}
		if why := trouble(p); why != "" && it.t.renewed(p) {
			return false, d.lost(it, why, own)
		}
	}
	s, err := shapeOf(it.now)
	if err != nil {
		return false, err
	}
	last, leaving := it.t.Replaced, false
	if it.evicted > 0 {
		old := it.t.Old[it.evicted-1]
		last, leaving = old.Name, alive(pods, old.UID)
	}
	if last != "" && (leaving || ready < s.pods) {
		if late {
			return false, d.lost(it, fmt.Sprintf("%d of %d pods ready %s after pod %s was evicted",
				ready, s.pods, d.lim.timeout, last), own)
		}
		return false, nil
	}
	if err := d.verify(it, own); err != nil {
		return false, err
	}
	for it.evicted < len(it.t.Old) && !alive(pods, it.t.Old[it.evicted].UID) {
		it.evicted++ // gone by itself, or by us before a resume
	}
	if it.evicted == len(it.t.Old) {
		return ready >= s.pods, nil
	}
	return false, d.evictNext(it, late)
}

func (d *driver) evictNext(it *item, late bool) error {
	budgets, err := mesh.Budgets(d.c.Ctx, d.c.Reader, it.t.Ref.Namespace)
	if err != nil {
		return err
	}
	for _, name := range it.t.Budgets {
		for _, b := range budgets {
			if b.Ref.Name == name && b.Allowed() < 1 && !late {
				return nil // until it allows one, or RUT013 is asked in the end
			}
		}
	}
	if _, err := d.sub.Submit(d.c.Ctx, d.p.Effects[it.t.Effects[it.evicted]]); err != nil {
		return err
	}
	it.evicted++
	it.deadline = d.now().Add(d.lim.timeout)
	return nil
}

func alive(pods []*cluster.Object, uid string) bool {
	for _, p := range pods {
		if string(p.GetUID()) == uid {
			return true
		}
	}
	return false
}

// soak lets time pass over a wave and watches that its pods stay well.
func (d *driver) soak(items []*item) error {
	before := map[string]int64{}
	end := d.now().Add(d.lim.soak)
	if err := d.look(items, func(_ *item, p *cluster.Object) string {
		before[string(p.GetUID())] = restarts([]*cluster.Object{p})
		return ""
	}); err != nil {
		return err
	}
	for {
		left := end.Sub(d.now())
		d.progress(fmt.Sprintf("%s: soaking, %s left", d.wave.Name, left.Round(time.Second)))
		if left <= 0 {
			break
		}
		if err := d.c.Env.Clock.Sleep(d.c.Ctx, min(left, d.untilLook(soakEvery))); err != nil {
			return err
		}
		if err := d.healthy(true); err != nil {
			return err
		}
		if err := d.look(items, func(_ *item, p *cluster.Object) string {
			if n, known := before[string(p.GetUID())]; known && restarts([]*cluster.Object{p}) > n {
				return fmt.Sprintf("pod %s: containers restarted %d times while the wave soaked", p.GetName(), restarts([]*cluster.Object{p})-n)
			}
			return trouble(p)
		}); err != nil {
			return err
		}
	}
	return d.readyAtLast(items)
}

// look judges every pod of the items.
func (d *driver) look(items []*item, judge func(*item, *cluster.Object) string) error {
	for _, it := range items {
		own, err := it.t.own(d.c)
		if err != nil {
			return err
		}
		for _, p := range own {
			if why := judge(it, p); why != "" {
				return d.lost(it, why, own)
			}
		}
	}
	return nil
}
