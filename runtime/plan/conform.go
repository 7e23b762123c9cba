package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
)

// InForce holds a run to a plan: it is the gate RUT008. An effect passes when the
// plan has one in the same step of the same identity (Identify) that was not made
// yet, and when no effect of a later group of that step was made before it. What
// may vary:
//
//   - the order within a group: a wave, or effects that were made at once;
//   - effects of the plan that turn out not to be needed: their object is as it
//     would be afterwards, or gone where it was to be deleted;
//   - evictions: of a workload that the plan evicts pods of, whichever and however
//     many pods it has by then.
//
// Anything else is refused: another step, another verb, another object, another
// body, the same once more, an earlier group after a later one.
type InForce struct {
	mu    sync.Mutex
	plan  *Plan
	of    map[string][]planned // by step and identity
	about map[string][]Effect  // by step and object, to say what is in the plan
	made  map[string]int
	last  map[string]int // latest group begun, by step
}

type planned struct {
	group int
	evict bool
}

var _ gate.Conformance = (*InForce)(nil)

// NewInForce puts a plan in force.
func NewInForce(p *Plan) *InForce {
	f := &InForce{plan: p, of: map[string][]planned{}, about: map[string][]Effect{}, made: map[string]int{}, last: map[string]int{}}
	for _, e := range p.Effects {
		k := e.Step + "\x00" + e.Identity
		f.of[k] = append(f.of[k], planned{e.Group, e.Verb == effect.Evict})
		about := e.Step + "\x00" + e.Ref.ID()
		f.about[about] = append(f.about[about], e)
	}
	return f
}

// Allows implements gate.Conformance.
func (f *InForce) Allows(step string, e *effect.Effect, earlier []*effect.Effect, forecast bool) []gate.Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := Identify(e)
	k := step + "\x00" + id
	have := f.of[k]
	if len(have) == 0 {
		return f.refuse(step, e)
	}
	n := f.made[k]
	for _, x := range earlier {
		if x != e && (!x.HoldsSecret() || x.Ref == e.Ref) && Identify(x) == id {
			n++
		}
	}
	if have[0].evict {
		n = 0
	}
	if n >= len(have) {
		return refusal(fmt.Sprintf("the saved plan has it %s in step %q, and it was made already", times(len(have)), step), "nothing more than was planned")
	}
	if group := have[n].group; !forecast && group < f.last[step] {
		return refusal(fmt.Sprintf("in the saved plan it comes before what step %q has made already", step), "the order of the plan")
	}
	return nil
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (f *InForce) refuse(step string, e *effect.Effect) []gate.Finding {
	if planned := f.about[step+"\x00"+e.Ref.ID()]; len(planned) > 0 {
		p := planned[0]
		if p.Verb != e.Verb {
			return refusal(fmt.Sprintf("the saved plan has %s of it in step %q, not %s", p.Verb, step, e.Verb), "what was planned")
		}
		return refusal(fmt.Sprintf("the saved plan has another change of it in step %q (%s, now %s)", step, short(p.Identity), short(Identify(e))), "what was planned")
	}
	for _, at := range slices.Sorted(maps.Keys(f.about)) {
		if other, ok := strings.CutSuffix(at, "\x00"+e.Ref.ID()); ok {
			return refusal(fmt.Sprintf("the saved plan changes it in step %q, not in step %q", other, step), "what was planned")
		}
	}
	return refusal("it is not in the saved plan", "what was planned")
}

func short(digest string) string {
	if _, d, ok := strings.Cut(digest, ":"); ok {
		digest = d
	}
	return digest[:min(12, len(digest))]
}

func refusal(problem, expect string) []gate.Finding {
	return []gate.Finding{{Verdict: gate.Block, Problem: problem, Expect: expect, Next: "make a new plan, and have it approved"}}
}

// Made implements gate.Conformance.
func (f *InForce) Made(step string, e *effect.Effect) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := step + "\x00" + Identify(e)
	if have := f.of[k]; len(have) > 0 {
		f.last[step] = max(f.last[step], have[min(f.made[k], len(have)-1)].group)
	}
	f.made[k]++
}

// Left are the effects of the plan that were not made.
func (f *InForce) Left() []cluster.Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	used := map[string]int{}
	var out []cluster.Ref
	for _, e := range f.plan.Effects {
		k := e.Step + "\x00" + e.Identity
		if used[k] >= f.made[k] {
			out = append(out, e.Ref)
		}
		used[k]++
	}
	return out
}
