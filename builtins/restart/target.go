package restart

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

// wish is a workload that ought to be restarted, as a census, a list of names
// or a look at the control plane found it.
type wish struct {
	ref      cluster.Ref
	reason   string
	from, to string // proxy versions; "" where they do not matter
	gateway  bool
	wave     string   // set where the caller knows the order; else Waves cut it
	nodes    []string // whose pods alone are replaced; all if empty
}

// target is a workload that a plan restarts. It is recorded with the plan, so
// that a resume goes on with the same one.
type target struct {
	Ref      cluster.Ref `json:"ref"`
	How      string      `json:"how"`
	Pods     int         `json:"pods"`
	Batch    int         `json:"batch"`
	Down     int         `json:"down"`
	Gateway  bool        `json:"gateway,omitempty"`
	Reason   string      `json:"reason"`
	From     string      `json:"from,omitempty"`
	To       string      `json:"to,omitempty"`
	Selector string      `json:"selector"`
	Budgets  []string    `json:"budgets,omitempty"` // PodDisruptionBudgets that select its pods
	Mark     string      `json:"mark,omitempty"`    // the restart annotation's value, for a roll
	Old      []oldPod    `json:"old,omitempty"`     // to be evicted, in this order
	// Replaced is the last pod that an earlier execution of the step evicted, which
	// may have no successor that is ready yet.
	Replaced string `json:"replaced,omitempty"`
	Effects  []int  `json:"effects"` // indexes into the plan's effects
	Wave     string `json:"wave"`
}

type oldPod struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// planData is the part of a plan that is this package's own.
type planData struct {
	Targets []*target `json:"targets"`
	Waves   []portion `json:"waves"`
	Skipped []Skipped `json:"skipped"`
}

// planner turns wishes into a plan. It only reads.
type planner struct {
	c      *builtin.Call
	waves  *Waves
	health []effect.Health
	limit  int
}

func (p *planner) plan(wishes []wish, skipped []Skipped) (*effect.Plan, error) {
	live, err := p.read(wishes)
	if err != nil {
		return nil, err
	}
	budgets, err := mesh.Budgets(p.c.Ctx, p.c.Reader, "")
	if err != nil {
		return nil, err
	}
	d := &planData{Skipped: skipped}
	objects := map[string]*cluster.Object{}
	for i, w := range wishes {
		t, why, err := p.target(w, live[i], budgets)
		switch {
		case err != nil:
			return nil, err
		case t == nil:
			d.Skipped = append(d.Skipped, skip(w.ref, why))
		default:
			d.Targets = append(d.Targets, t)
			objects[t.Ref.ID()] = live[i]
		}
	}
	if len(d.Targets) > 0 && d.Targets[0].Wave != "" {
		d.Waves = given(d.Targets, p.limit)
	} else {
		d.Targets = inTurn(d.Targets, p.waves.Canary)
		d.Waves = p.waves.portions(d.Targets, p.limit)
	}
	return p.effects(d, objects)
}

// read gets every wished workload; a missing one is nil.
func (p *planner) read(wishes []wish) ([]*cluster.Object, error) {
	live := make([]*cluster.Object, len(wishes))
	err := each(p.c, len(wishes), func(i int) error {
		o, err := p.c.Reader.Get(p.c.Ctx, wishes[i].ref)
		if err != nil && !isAbsent(err) {
			return err
		}
		live[i] = o
		return nil
	})
	return live, err
}

// target is what becomes of a wish; nil with the reason where it is left alone.
func (p *planner) target(w wish, o *cluster.Object, budgets []mesh.Budget) (*target, string, error) {
	if o == nil {
		return nil, "it is gone", nil
	}
	s, err := shapeOf(o)
	if err != nil {
		return nil, "", err
	}
	if s.no != "" {
		return nil, s.no + "; " + "restart it by hand", nil
	}
	if s.pods == 0 {
		return nil, "it has no pods", nil
	}
	sel, err := selectorOf(o)
	if err != nil {
		return nil, "", err
	}
	t := &target{
		Ref: w.ref, How: s.how, Pods: s.pods, Batch: s.batch, Down: s.down, Gateway: w.gateway,
		Reason: w.reason, From: w.from, To: w.to, Selector: sel.String(), Wave: w.wave,
	}
	pods := mesh.PodLabels(o)
	for _, b := range budgets {
		if b.Matches(w.ref.Namespace, pods) {
			t.Budgets = append(t.Budgets, b.Ref.Name)
		}
	}
	if s.how == howEvict {
		if t.Old, err = p.oldPods(t, w.nodes); err != nil {
			return nil, "", err
		}
		if len(w.nodes) > 0 && len(t.Old) == 0 && t.Replaced == "" {
			return nil, "it has no pod on " + strings.Join(w.nodes, ", "), nil
		}
		return t, "", nil
	}
	if len(w.nodes) > 0 {
		return nil, "", &diag.Error{
			Code: diag.Usage, Subject: w.ref.String(), Problem: "its controller replaces the pods of all nodes as soon as one is to be",
			Expect: "updateStrategy.type OnDelete where nodes are named", Next: "apply it with OnDelete first, then restart it node by node",
		}
	}
	if p.restarted(w, o) {
		return nil, "this step has restarted it before it failed", nil
	}
	t.Mark = markOf(p.c.Run.ID, o)
	return t, "", nil
}

// restarted reports whether this step restarted a workload already, in an execution
// that failed later, and it came up. One whose proxies are looked at is in the plan
// only while they are old, whatever was restarted before.
func (p *planner) restarted(w wish, o *cluster.Object) bool {
	if w.to != "" || p.c.Made == nil || !strings.HasPrefix(marked(o), p.c.Run.ID+"/g") {
		return false
	}
	if ready, _, _ := cluster.Ready(o); !ready {
		return false
	}
	return p.c.Made(func(e *effect.Effect) bool {
		return e.Verb == effect.Patch && e.Ref.ID() == w.ref.ID() && strings.Contains(string(e.Body), effect.AnnotationRestart)
	})
}

// replaced is restarted for a pod: the name of the evicted one in whose place o was
// made, or "". It need not be ready; that is waited for.
func (p *planner) replaced(t *target, o *cluster.Object) (evicted string) {
	by, controlled := cluster.ControllerOf(o)
	if t.To != "" || p.c.Made == nil || !controlled {
		return ""
	}
	p.c.Made(func(e *effect.Effect) bool {
		if e.Verb != effect.Evict || e.UID == string(o.GetUID()) || e.Before == nil {
			return false
		}
		if was, _ := cluster.ControllerOf(e.Before); was != by {
			return false
		}
		// A StatefulSet gives the pod its name again, a DaemonSet its node.
		if e.Ref.Name != o.GetName() && (t.Ref.Kind != "DaemonSet" || text(e.Before, "spec", "nodeName") != text(o, "spec", "nodeName")) {
			return false
		}
		evicted = e.Ref.Name
		return true
	})
	return evicted
}

func marked(o *cluster.Object) string {
	mark, _, err := unstructured.NestedString(o.Object, "spec", "template", "metadata", "annotations", effect.AnnotationRestart)
	if err != nil {
		return ""
	}
	return mark
}

// markOf is the mark of a restart by this run. The generation makes it differ
// between two restarts within one run, and is the same however often a plan is
// carried out. A workload that this run restarted and that still rolls keeps its
// mark: a plan that is made again after an interruption means the same restart,
// not another one.
func markOf(run string, o *cluster.Object) string {
	if mark := marked(o); strings.HasPrefix(mark, run+"/g") {
		if ready, _, _ := cluster.Ready(o); !ready {
			return mark
		}
	}
	return fmt.Sprintf("%s/g%d", run, o.GetGeneration())
}

// oldPods are the pods to evict: the highest ordinal first, as the StatefulSet
// controller itself would replace them.
func (p *planner) oldPods(t *target, nodes []string) ([]oldPod, error) {
	mine, err := t.own(p.c)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(mine, func(a, b *cluster.Object) int {
		return cmp.Or(cmp.Compare(len(b.GetName()), len(a.GetName())), cmp.Compare(b.GetName(), a.GetName()))
	})
	var out []oldPod
	for _, o := range mine {
		if got, ok := proxyOf(o); t.To != "" && ok && got.is(t.To) {
			continue // was replaced since
		}
		if len(nodes) > 0 && !slices.Contains(nodes, text(o, "spec", "nodeName")) {
			continue
		}
		if was := p.replaced(t, o); was != "" {
			t.Replaced = was
			continue
		}
		out = append(out, oldPod{o.GetName(), string(o.GetUID())})
	}
	return out, nil
}

// inTurn orders the targets: the canaries, then gateways (they carry everybody's
// traffic and belong before the workloads, GUIDE §3), then the longest first,
// which keeps the whole short under a limit (FACTS §4).
func inTurn(ts []*target, canaries int) []*target {
	name := func(a, b *target) int {
		return cmp.Or(cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name), cmp.Compare(a.Ref.Kind, b.Ref.Kind))
	}
	slices.SortFunc(ts, func(a, b *target) int { return cmp.Or(cmp.Compare(a.risk(), b.risk()), name(a, b)) })
	n := min(canaries, len(ts))
	slices.SortFunc(ts[n:], func(a, b *target) int {
		return cmp.Or(boolFirst(a.Gateway, b.Gateway), cmp.Compare(b.expected(), a.expected()), name(a, b))
	})
	return ts
}

// risk orders candidates for the canary: what can best be spared is a workload
// of several pods that its controller rolls without anybody missing one.
func (t *target) risk() int {
	r := 0
	if t.Gateway {
		r += 16
	}
	if t.How != howRoll {
		r += 8
	}
	if t.Ref.Kind != "Deployment" {
		r += 4
	}
	if t.Pods < 2 {
		r += 2
	}
	if t.Down > 0 {
		r++
	}
	return r
}

func (t *target) expected() int { return (t.Pods + t.Batch - 1) / max(1, t.Batch) }

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// effects forecasts the writes.
func (p *planner) effects(d *planData, objects map[string]*cluster.Object) (*effect.Plan, error) {
	per := make([][]*effect.Effect, len(d.Targets))
	ask := each
	if p.c.Distant {
		ask = overlapped // nothing depends on the order in which dry-runs are asked for
	}
	err := ask(p.c, len(d.Targets), func(i int) error {
		var err error
		if t := d.Targets[i]; t.How == howEvict {
			per[i], err = p.evictions(t)
		} else {
			per[i], err = p.roll(t, objects[t.Ref.ID()])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	plan := &effect.Plan{}
	for i, t := range d.Targets {
		for _, e := range per[i] {
			e.Wave, e.Why, e.Health = t.Wave, t.Reason, p.health
			t.Effects = append(t.Effects, len(plan.Effects))
			plan.Effects = append(plan.Effects, e)
		}
	}
	for _, s := range d.Skipped {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%s in %s is left alone: %s", s.Workload, s.Namespace, s.Reason))
	}
	if plan.Data, err = json.Marshal(d); err != nil {
		return nil, err
	}
	return plan, nil
}

// roll patches the pod template's annotation, as kubectl rollout restart does,
// but with a mark instead of the time. Argo Rollouts are rolled in the same
// way and not by spec.restartAt, which is a time: a payload must be the same
// whenever it is sent (ruling 10).
func (p *planner) roll(t *target, before *cluster.Object) ([]*effect.Effect, error) {
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{effect.AnnotationRestart: t.Mark}},
	}}})
	if err != nil {
		return nil, err
	}
	e := &effect.Effect{
		Verb: effect.Patch, Ref: t.Ref, Body: body, PatchType: string(types.MergePatchType),
		UID: string(before.GetUID()), Before: before, Undo: effect.Undo{Kind: effect.UndoRestart},
	}
	if p.c.Mark != nil {
		p.c.Mark(e)
	}
	if body, err = e.MarkedPatch(); err != nil {
		return nil, err
	}
	after, err := p.c.Reader.DryRunPatch(p.c.Ctx, t.Ref, types.MergePatchType, body, cluster.WriteOptions{UID: before.GetUID()})
	if err != nil && p.c.Ctx.Err() != nil {
		return nil, err
	}
	// A refusal is RUT006's to report, which tries the same again: then there
	// is only no prediction.
	e.After = after
	return []*effect.Effect{e}, nil
}

func (p *planner) evictions(t *target) ([]*effect.Effect, error) {
	var out []*effect.Effect
	for _, old := range t.Old {
		ref := cluster.Ref{Version: "v1", Kind: "Pod", Namespace: t.Ref.Namespace, Name: old.Name}
		before, err := p.c.Reader.Get(p.c.Ctx, ref)
		if err != nil {
			return nil, err
		}
		out = append(out, &effect.Effect{
			Verb: effect.Evict, Ref: ref, UID: old.UID, Before: before,
			Undo: effect.Undo{Kind: effect.UndoNone, Reason: "its controller makes it anew from the pod template"},
		})
	}
	return out, nil
}

func skip(ref cluster.Ref, why string) Skipped {
	return Skipped{Workload: short(ref), Namespace: ref.Namespace, Name: ref.Name, Kind: ref.Kind, Reason: why}
}

// readers bounds the reads in flight of one call on a real clock.
const readers = 16

// each calls f for 0 … n-1: at the same time on a real clock, one after the
// other on a virtual one, where time does not pass between requests anyway and
// the order of requests must be the same in every run. It returns the error of
// the lowest index.
func each(c *builtin.Call, n int, f func(i int) error) error {
	if c.Env.Clock.Virtual() {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	return overlapped(c, n, f)
}

func overlapped(c *builtin.Call, n int, f func(i int) error) error {
	errs := make([]error, n)
	ctx, cancel := context.WithCancel(c.Ctx)
	defer cancel()
	slots := make(chan struct{}, readers)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if errs[i] = f(i); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return c.Ctx.Err()
}

// short is how a report names a workload whose namespace stands beside it.
func short(ref cluster.Ref) string {
	ref.Namespace = ""
	return ref.String()
}
