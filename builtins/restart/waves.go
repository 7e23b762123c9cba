package restart

import (
	"encoding/json"
	"fmt"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/value"
)

// wavesKind names the encoding of Waves.
const wavesKind = "restart.waves/1"

// Waves says in which portions workloads are restarted; it is what
// restart.waves returns. Immutable.
type Waves struct {
	// Canary is how many workloads go first, alone, and are verified before
	// anything else is touched; 0 means no canary.
	Canary int `json:"canary"`
	// Then is the most workloads in flight after the canary, as a count or a
	// share of all.
	Then value.Quantity `json:"then"`
	// Barrier makes every portion of Then a wave of its own, waited for to its
	// last workload (and soaked) before the next begins.
	Barrier bool `json:"barrier,omitempty"`
}

var (
	_ value.Handle      = (*Waves)(nil)
	_ starlark.HasAttrs = (*Waves)(nil)
)

// defaultWaves are those of a call that names none.
func defaultWaves() *Waves { return &Waves{Canary: 1, Then: value.Quantity{N: 25, Percent: true}} }

// String is how the waves were written.
func (w *Waves) String() string {
	s := fmt.Sprintf("restart.waves(canary = %d, then = %q", w.Canary, w.Then)
	if w.Barrier {
		s += ", barrier = True"
	}
	return s + ")"
}

// Type implements starlark.Value.
func (w *Waves) Type() string { return "waves" }

// Freeze implements starlark.Value; Waves are always frozen.
func (w *Waves) Freeze() {}

// Truth implements starlark.Value.
func (w *Waves) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (w *Waves) Hash() (uint32, error) { return starlark.String(w.String()).Hash() }

// Attr gives canary, then and barrier.
func (w *Waves) Attr(name string) (starlark.Value, error) {
	switch name {
	case "canary":
		return starlark.MakeInt(w.Canary), nil
	case "then":
		return w.Then, nil
	case "barrier":
		return starlark.Bool(w.Barrier), nil
	}
	return nil, nil
}

// AttrNames implements starlark.HasAttrs.
func (w *Waves) AttrNames() []string { return []string{"barrier", "canary", "then"} }

// HandleKind implements value.Handle.
func (w *Waves) HandleKind() string { return wavesKind }

// EncodeHandle implements value.Handle.
func (w *Waves) EncodeHandle() (json.RawMessage, error) { return json.Marshal(w) }

func decodeWaves(raw json.RawMessage) (starlark.Value, error) {
	w := &Waves{}
	if err := json.Unmarshal(raw, w); err != nil {
		return nil, fmt.Errorf("waves: %w", err)
	}
	return w, nil
}

// portion is one wave of a plan: workloads that are begun together, as far as
// the limits allow, and waited for to the last one.
type portion struct {
	Name    string `json:"name"`
	Targets []int  `json:"targets"` // indexes into the plan's targets
	Most    int    `json:"most"`    // in flight at once
}

// portions cuts the targets, given in the order of their turn, into waves and
// names the wave in each target.
func (w *Waves) portions(targets []*target, limit int) []portion {
	share := min(limit, max(1, w.Then.Of(len(targets), true)))
	left := make([]int, len(targets))
	for i := range targets {
		left[i] = i
	}
	var out []portion
	take := func(name string, n, most int) {
		out = append(out, portion{Name: name, Targets: left[:n], Most: most})
		left = left[n:]
	}
	if n := min(w.Canary, len(targets)); n > 0 {
		take("canary", n, min(n, limit))
	}
	size := max(1, len(left))
	if w.Barrier {
		size = share
	}
	for len(left) > 0 {
		take("", min(size, len(left)), share)
	}
	for i := range out {
		if out[i].Name == "" {
			out[i].Name = fmt.Sprintf("%d of %d", i+1, len(out))
		}
		for _, t := range out[i].Targets {
			targets[t].Wave = out[i].Name
		}
	}
	return out
}

// given are the waves of targets that come with their own, in their order.
func given(targets []*target, limit int) []portion {
	var out []portion
	for i, t := range targets {
		if len(out) == 0 || out[len(out)-1].Name != t.Wave {
			out = append(out, portion{Name: t.Wave, Most: limit})
		}
		out[len(out)-1].Targets = append(out[len(out)-1].Targets, i)
	}
	return out
}
