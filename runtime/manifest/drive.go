package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

// crdWait is how long CRDs get to be established where the call waits for
// nothing else: without it the objects of their kinds could not be sent.
const crdWait = time.Minute

// driveData is what driving needs besides the effects; it goes through the
// journal with them.
type driveData struct {
	Stages    []Stage                 `json:"stages"` // of each effect
	Waits     map[Stage][]cluster.Ref `json:"waits,omitempty"`
	Unchanged []string                `json:"unchanged,omitempty"`
	Left      []Left                  `json:"left,omitempty"`
}

// EffectPlan is p as a builtin returns it from its Plan, for Drive to carry out.
func (p *Planned) EffectPlan() (*effect.Plan, error) {
	d := driveData{Stages: p.Stages, Waits: p.Waits, Left: p.Left}
	for _, ref := range p.Unchanged {
		d.Unchanged = append(d.Unchanged, ref.String())
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	notes := p.Notes
	if n := len(d.Unchanged); n > 0 {
		notes = append([]string{fmt.Sprintf("%d of %d objects stay as they are", n, p.objects)}, notes...)
	}
	return &effect.Plan{Effects: p.Effects, Notes: notes, Data: raw}, nil
}

// Add appends an effect to those of its stage.
func (p *Planned) Add(s Stage, e *effect.Effect) { p.add(s, e) }

// DriveOptions say how a planned apply is carried out.
type DriveOptions struct {
	Adopt []string      // as in Options
	Wait  time.Duration // for the workloads, all together; 0 does not wait
	// Began, if given, is told of each stage that has effects or something to
	// wait for, before it begins.
	Began func(s Stage, effects int)
}

// Applied is what an apply did, by the names of objects.
type Applied struct {
	Applied   []string `json:"applied"`
	Unchanged []string `json:"unchanged"`
	Pruned    []string `json:"pruned"`
	Left      []string `json:"left"`
}

// driving is one apply on its way.
type driving struct {
	c        *builtin.Call
	o        DriveOptions
	s        effect.Submitter
	data     driveData
	deadline time.Time
	done     *Applied
}

// Drive submits the effects of a plan that EffectPlan made, stage by stage, and
// waits after each for what must be ready before the next. It ends with c.Ctx
// between two requests. The error names the stage that did not become ready;
// what was applied until then stays.
func Drive(c *builtin.Call, s effect.Submitter, p *effect.Plan, o DriveOptions) (*Applied, error) {
	d := &driving{c: c, o: o, s: s, deadline: c.Env.Clock.Now().Add(o.Wait), done: &Applied{Applied: []string{}, Unchanged: []string{}, Pruned: []string{}, Left: []string{}}}
	if err := json.Unmarshal(p.Data, &d.data); err != nil {
		return nil, fmt.Errorf("recorded plan: %w", err)
	}
	if len(d.data.Stages) != len(p.Effects) {
		return nil, fmt.Errorf("recorded plan: has %d effects and %d stages", len(p.Effects), len(d.data.Stages))
	}
	for stage := CRDs; stage <= Inventory; stage++ {
		if err := d.stage(stage, p.Effects); err != nil {
			return nil, err
		}
	}
	d.done.Unchanged = append(d.done.Unchanged, d.data.Unchanged...)
	for _, l := range d.data.Left {
		d.done.Left = append(d.done.Left, l.Ref.String())
	}
	return d.done, nil
}

func (d *driving) stage(stage Stage, all []*effect.Effect) error {
	var es []*effect.Effect
	for i, e := range all {
		if d.data.Stages[i] == stage {
			es = append(es, e)
		}
	}
	if d.o.Began != nil && (len(es) > 0 || len(d.data.Waits[stage]) > 0) {
		d.o.Began(stage, len(es))
	}
	if err := d.submit(stage, es); err != nil {
		return err
	}
	return d.await(stage)
}

// submit makes the effects of one stage: at once where they don't depend on
// one another, else in order.
func (d *driving) submit(stage Stage, es []*effect.Effect) error {
	if len(es) == 0 {
		return nil
	}
	es, err := d.move(es)
	if err != nil {
		return err
	}
	switch stage {
	case CRDs, Namespaces, Base, Config:
		if _, err := d.s.SubmitAll(d.c.Ctx, es); err != nil {
			return err
		}
	default:
		for _, e := range es {
			if _, err := d.s.Submit(d.c.Ctx, e); err != nil {
				return err
			}
		}
	}
	for _, e := range es {
		switch stage {
		case Prune:
			d.done.Pruned = append(d.done.Pruned, e.Ref.String())
		case Inventory:
		default:
			d.done.Applied = append(d.done.Applied, e.Ref.String())
		}
	}
	return nil
}

// moveTries bounds how often a move is made anew because somebody wrote the
// object in between.
const moveTries = 3

// move makes the effects among es that move ownership, which must be done
// before the applies, and gives back the rest. Each is made out anew, since
// controllers that write a status reorder the list of owners all the time.
func (d *driving) move(es []*effect.Effect) ([]*effect.Effect, error) {
	var rest []*effect.Effect
	for _, e := range es {
		if !IsMove(e) {
			rest = append(rest, e)
			continue
		}
		if err := d.moveOne(e); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (d *driving) moveOne(e *effect.Effect) error {
	for try := 1; ; try++ {
		now, err := Readopt(d.c.Ctx, d.c.Reader, e, d.o.Adopt)
		if err != nil || now == nil {
			return err
		}
		_, err = d.s.Submit(d.c.Ctx, now)
		if err == nil || try == moveTries || !errors.Is(err, cluster.ErrConflict) {
			return err
		}
	}
}

func (d *driving) await(stage Stage) error {
	refs := d.data.Waits[stage]
	timeout := d.deadline.Sub(d.c.Env.Clock.Now())
	switch {
	case len(refs) == 0, d.o.Wait <= 0 && stage != CRDs:
		return nil
	case d.o.Wait <= 0:
		timeout = crdWait
	}
	err := Await(d.c, refs, timeout, cluster.Ready, func(done, total int, message string) {
		if message == "" {
			message = stage.String() + ": ready"
		}
		d.s.Progress(done, total, message)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	return nil
}
