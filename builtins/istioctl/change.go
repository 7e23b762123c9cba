package istioctl

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// ChangeKind is the HandleKind of a Change.
const ChangeKind = "istioctl-change/1"

// Change is what a writing builtin of the module would do, shown before it is
// done, for an approval. It is immutable.
type Change struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Text  string   `json:"text"` // unified diff, Secrets masked, then the notes
	Notes []string `json:"notes,omitempty"`
	// Effects are "verb object", in the order in which they would be made.
	Effects []string `json:"effects"`
	// Restarts are workloads that roll by themselves as soon as it is done.
	Restarts []string `json:"restarts"`
	// Outdated are workloads whose pods would come out different after it: they
	// stay as they are until somebody restarts them.
	Outdated []outdated `json:"outdated"`
}

var (
	_ value.Handle      = (*Change)(nil)
	_ starlark.HasAttrs = (*Change)(nil)
)

// impact is what a change does beyond its own objects.
type impact struct {
	Restarts []string   `json:"restarts"`
	Outdated []outdated `json:"outdated"`
}

// show makes the Change of planned effects, tells the views, and notes the
// digests that an approval then binds.
func show(c *builtin.Call, title string, p *effect.Plan, im impact) (*Change, error) {
	ch := &Change{Title: title, Notes: p.Notes, Effects: []string{}, Restarts: im.Restarts, Outdated: im.Outdated}
	fact, moves := &effect.Diff{Objects: map[string]string{}}, &effect.Diff{Objects: map[string]string{}}
	var b strings.Builder
	h := sha256.New()
	for _, e := range p.Effects {
		if manifest.IsMove(e) {
			moves.Objects[e.Ref.ID()] = e.Digest()
			continue
		}
		fact.Objects[e.Ref.ID()] = e.Digest()
		ch.Effects = append(ch.Effects, string(e.Verb)+" "+e.Ref.String())
		after := e.After
		if after == nil && e.Verb != effect.Delete {
			after = e.Intended()
		}
		text, err := manifest.Unified(e.Ref, e.Before, after)
		if err != nil {
			return nil, err
		}
		b.WriteString(text)
		fmt.Fprintf(h, "%s\x00%s\x00", e.Ref.ID(), e.Digest())
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

// names are refs as people read them, sorted.
func names(refs []cluster.Ref) []string {
	out := make([]string, len(refs))
	for i, r := range refs {
		out[i] = r.String()
	}
	slices.Sort(out)
	return out
}
