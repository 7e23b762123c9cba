package diff

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// Kind is the HandleKind of a Result.
const Kind = "diff/1"

// Change says what becomes of an object.
type Change string

// The changes.
const (
	Added   Change = "added"
	Changed Change = "changed"
	Removed Change = "removed"
)

// Item is one object that differs.
type Item struct {
	Ref    cluster.Ref `json:"ref"`
	Change Change      `json:"change"`
	Risks  []string    `json:"risks"`
	// Effect is the digest of the effect that would make the change; "" where
	// no effect does (two manifests compared).
	Effect string `json:"effect,omitempty"`
	// Refused is what the API server's dry-run said against it.
	Refused string `json:"refused,omitempty"`
	text    string
}

// Result is what a diff found. It is immutable.
type Result struct {
	ID    string   `json:"id"` // sha256 of what was shown and of what it would do
	Title string   `json:"title"`
	Items []Item   `json:"items"`
	Notes []string `json:"notes,omitempty"`
	Text  string   `json:"text"` // unified diff, Secrets masked
}

var (
	_ value.Handle      = (*Result)(nil)
	_ starlark.HasAttrs = (*Result)(nil)
)

// compared makes the Item of one object, or nothing when nothing that counts differs.
func compared(ref cluster.Ref, before, after *cluster.Object) (*Item, error) {
	text, err := manifest.Unified(ref, before, after)
	if err != nil || text == "" {
		return nil, err
	}
	it := &Item{Ref: ref, Change: Changed, Risks: risks(ref, before, after), text: text}
	switch {
	case before == nil:
		it.Change = Added
	case after == nil:
		it.Change = Removed
	}
	return it, nil
}

// finish orders the items, writes the text and names the result.
func finish(title string, items []Item, notes []string) *Result {
	r := &Result{Items: items, Notes: notes}
	counts := map[Change]int{}
	var b strings.Builder
	for _, it := range items {
		counts[it.Change]++
		b.WriteString(it.text)
		if it.Refused != "" {
			fmt.Fprintf(&b, "! %s: %s\n", it.Ref, it.Refused)
		}
	}
	for _, n := range notes {
		b.WriteString("# " + n + "\n")
	}
	r.Text = b.String()
	r.Title = fmt.Sprintf("%s: %d changed, %d added, %d removed", title, counts[Changed], counts[Added], counts[Removed])
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00", r.Title, r.Text)
	for _, it := range items {
		fmt.Fprintf(h, "%s\x00%s\x00", it.Ref.ID(), it.Effect)
	}
	r.ID = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return r
}

// Decode is the decoder of Kind.
func Decode(raw json.RawMessage) (starlark.Value, error) {
	r := &Result{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", Kind, err)
	}
	return r, nil
}

// HandleKind implements value.Handle.
func (r *Result) HandleKind() string { return Kind }

// EncodeHandle implements value.Handle.
func (r *Result) EncodeHandle() (json.RawMessage, error) { return json.Marshal(r) }

// DiffID is what approve(covers = [...]) binds.
func (r *Result) DiffID() string { return r.ID }

// String is how a log shows it.
func (r *Result) String() string { return "<diff " + r.Title + ">" }

// Type implements starlark.Value.
func (r *Result) Type() string { return "diff" }

// Freeze implements starlark.Value; a diff is always frozen.
func (r *Result) Freeze() {}

// Truth is true when something differs.
func (r *Result) Truth() starlark.Bool { return len(r.Items) > 0 }

// Hash implements starlark.Value.
func (r *Result) Hash() (uint32, error) { return starlark.String(r.ID).Hash() }

// Attr implements starlark.HasAttrs.
func (r *Result) Attr(name string) (starlark.Value, error) {
	switch name {
	case "id":
		return starlark.String(r.ID), nil
	case "title":
		return starlark.String(r.Title), nil
	case "text":
		return starlark.String(r.Text), nil
	case "notes":
		return value.FromGo(r.Notes)
	case "changed":
		return r.names(func(it Item) bool { return it.Change == Changed })
	case "added":
		return r.names(func(it Item) bool { return it.Change == Added })
	case "removed":
		return r.names(func(it Item) bool { return it.Change == Removed })
	case "refused":
		return r.names(func(it Item) bool { return it.Refused != "" })
	case "objects":
		return r.objects()
	case "by_risk":
		return r.byRisk()
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("diff has no attribute %q; it has: %s", name, strings.Join(r.AttrNames(), ", ")))
}

// AttrNames implements starlark.HasAttrs.
func (r *Result) AttrNames() []string {
	return []string{"added", "by_risk", "changed", "id", "notes", "objects", "refused", "removed", "text", "title"}
}

func (r *Result) names(keep func(Item) bool) (starlark.Value, error) {
	out := []string{}
	for _, it := range r.Items {
		if keep(it) {
			out = append(out, it.Ref.String())
		}
	}
	return value.FromGo(out)
}

func (r *Result) objects() (starlark.Value, error) {
	out := make([]any, len(r.Items))
	for i, it := range r.Items {
		risks := make([]any, len(it.Risks))
		for j, s := range it.Risks {
			risks[j] = s
		}
		out[i] = map[string]any{
			"name": it.Ref.Name, "namespace": it.Ref.Namespace, "kind": it.Ref.Kind, "group": it.Ref.Group,
			"ref": it.Ref.String(), "change": string(it.Change), "risks": risks, "refused": it.Refused,
		}
	}
	return value.FromGo(out)
}

func (r *Result) byRisk() (starlark.Value, error) {
	out := map[string]any{}
	for _, it := range r.Items {
		for _, risk := range it.Risks {
			list, _ := out[risk].([]any)
			out[risk] = append(list, it.Ref.String())
		}
	}
	return value.FromGo(out)
}

// byKind sorts items as a reviewer reads them: the order in which they go in
// is kept where there is one; this is for comparisons that have none.
func byKind(items []Item) {
	sort.Slice(items, func(i, j int) bool { return items[i].Ref.ID() < items[j].Ref.ID() })
}
