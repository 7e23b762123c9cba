package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/value"
)

// ChangeKind is the HandleKind of a Change.
const ChangeKind = "change/1"

// Change is what a writing builtin would do, shown before it is done, for an
// approval. It is immutable.
type Change struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Text  string   `json:"text"` // unified diff, Secrets masked, then the notes
	Notes []string `json:"notes,omitempty"`
	// Effects are "verb object", in the order in which they would be made.
	Effects []string `json:"effects"`
	Impact
}

// Impact is what a change does beyond its own objects.
type Impact struct {
	// Restarts are workloads that roll by themselves as soon as it is done.
	Restarts []string `json:"restarts"`
	// Outdated are workloads whose pods would come out different after it: they
	// stay as they are until somebody restarts them.
	Outdated []Outdated `json:"outdated"`
}

// Outdated is one workload with outdated proxies. Workload, namespace, name and
// kind are as in a restart's report.
type Outdated struct {
	Workload  string `json:"workload"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Pods      int    `json:"pods"`
	From      string `json:"from"` // version, image or revision: what differs
	To        string `json:"to"`
	Reason    string `json:"reason"`
}

// OutdatedOf is a workload of the census as scripts get it.
func OutdatedOf(w mesh.Workload) Outdated {
	short := w.Ref
	short.Namespace = ""
	return Outdated{
		Workload: short.String(), Namespace: w.Ref.Namespace, Name: w.Ref.Name, Kind: w.Ref.Kind,
		Pods: w.Pods, From: w.From, To: w.To, Reason: w.Why(),
	}
}

// Words say the impact for the plan and the diff.
func (im Impact) Words() []string {
	var out []string
	for _, w := range im.Restarts {
		out = append(out, w+" rolls at once: istiod of another revision takes its gateway over")
	}
	if n := len(im.Outdated); n > 0 {
		var ws []string
		for _, w := range im.Outdated {
			ws = append(ws, w.Namespace+"/"+w.Workload)
		}
		out = append(out, fmt.Sprintf("%d workloads get another proxy when they are restarted: %s", n, strings.Join(ws, ", ")))
	}
	return out
}

var (
	_ value.Handle      = (*Change)(nil)
	_ starlark.HasAttrs = (*Change)(nil)
)

// Show makes the Change of planned effects, tells the views, and notes the
// digests that an approval then binds.
func Show(c *builtin.Call, title string, p *effect.Plan, im Impact) (*Change, error) {
	ch := &Change{Title: title, Notes: p.Notes, Effects: []string{}, Impact: im}
	if ch.Restarts == nil {
		ch.Restarts = []string{}
	}
	if ch.Outdated == nil {
		ch.Outdated = []Outdated{}
	}
	fact, moves := &effect.Diff{Objects: map[string]string{}}, &effect.Diff{Objects: map[string]string{}}
	var b strings.Builder
	h := sha256.New()
	for _, e := range p.Effects {
		if IsMove(e) {
			moves.Objects[e.Ref.ID()] = c.Digest(e)
			continue
		}
		fact.Objects[e.Ref.ID()] = c.Digest(e)
		ch.Effects = append(ch.Effects, string(e.Verb)+" "+e.Ref.String())
		after := e.After
		if after == nil && e.Verb != effect.Delete {
			after = e.Intended()
		}
		text, err := Unified(e.Ref, e.Before, after)
		if err != nil {
			return nil, err
		}
		b.WriteString(text)
		fmt.Fprintf(h, "%s\x00%s\x00", e.Ref.ID(), c.Digest(e))
	}
	for _, n := range p.Notes {
		b.WriteString("# " + n + "\n")
	}
	ch.Text = b.String()
	fmt.Fprintf(h, "%s\x00%s\x00", ch.Title, ch.Text)
	ch.ID = "sha256:" + hex.EncodeToString(h.Sum(nil))
	fact.ID, moves.ID = ch.ID, ch.ID
	c.Note(effect.Fact{Diff: fact})
	if len(moves.Objects) > 0 {
		c.Note(effect.Fact{Diff: moves})
	}
	c.Emit(&event.Diff{ID: ch.ID, Title: ch.Title, Text: ch.Text})
	return ch, nil
}

// DecodeChange is the decoder of ChangeKind.
func DecodeChange(raw json.RawMessage) (starlark.Value, error) {
	ch := &Change{}
	if err := json.Unmarshal(raw, ch); err != nil {
		return nil, fmt.Errorf("%s: %w", ChangeKind, err)
	}
	return ch, nil
}

// HandleKind implements value.Handle.
func (ch *Change) HandleKind() string { return ChangeKind }

// EncodeHandle implements value.Handle.
func (ch *Change) EncodeHandle() (json.RawMessage, error) { return json.Marshal(ch) }

// DiffID is what approve(covers = [...]) binds.
func (ch *Change) DiffID() string { return ch.ID }

// String is how a log shows it.
func (ch *Change) String() string {
	return fmt.Sprintf("<change %s, %d effects>", ch.Title, len(ch.Effects))
}

// Type implements starlark.Value.
func (ch *Change) Type() string { return "change" }

// Freeze implements starlark.Value; a change is always frozen.
func (ch *Change) Freeze() {}

// Truth is true when there is something to do.
func (ch *Change) Truth() starlark.Bool { return len(ch.Effects) > 0 }

// Hash implements starlark.Value.
func (ch *Change) Hash() (uint32, error) { return starlark.String(ch.ID).Hash() }

// Attr implements starlark.HasAttrs.
func (ch *Change) Attr(name string) (starlark.Value, error) {
	switch name {
	case "id":
		return starlark.String(ch.ID), nil
	case "title":
		return starlark.String(ch.Title), nil
	case "text":
		return starlark.String(ch.Text), nil
	case "notes":
		return value.FromGo(ch.Notes)
	case "effects":
		return value.FromGo(ch.Effects)
	case "restarts":
		return value.FromGo(ch.Restarts)
	case "outdated":
		return value.FromGo(ch.Outdated)
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("change has no attribute %q; it has: %s", name, strings.Join(ch.AttrNames(), ", ")))
}

// AttrNames implements starlark.HasAttrs.
func (ch *Change) AttrNames() []string {
	return []string{"effects", "id", "notes", "outdated", "restarts", "text", "title"}
}
