package istioctl

import (
	"encoding/json"
	"slices"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

type diffAnalysesArgs struct {
	Before starlark.Value `star:"before,positional" doc:"what istioctl.analyze returned before a change"`
	After  starlark.Value `star:"after,positional" doc:"what it returned after it"`
}

// analysisDiff is the value of istioctl.diff_analyses.
type analysisDiff struct {
	OK    bool     `json:"ok"` // no new message of level Error
	New   []string `json:"new"`
	Gone  []string `json:"gone"`
	Stays []string `json:"stays"`
}

func diffAnalysesSpec() *builtin.Spec {
	return builtin.NewPure(builtin.PureDef[diffAnalysesArgs]{
		Name: "istioctl.diff_analyses", Returns: "struct(ok, new, gone, stays)",
		Doc: `Which findings of istioctl.analyze a change brought, and which it mended.
A mesh has findings that nobody minds; what counts in an upgrade are the new
ones. ok is True where none of these is an error.`,
		Example: `before = step("analyze before", istioctl.analyze)
after = step("analyze after", istioctl.analyze)
istioctl.diff_analyses(before, after).new`,
		Do: func(_ *builtin.Call, a *diffAnalysesArgs) (any, error) {
			before, err := messagesOf("before", a.Before)
			if err != nil {
				return nil, err
			}
			after, err := messagesOf("after", a.After)
			if err != nil {
				return nil, err
			}
			return compareAnalyses(before, after), nil
		},
	})
}

// messagesOf reads the value of istioctl.analyze, whatever form it came back in
// from the journal.
func messagesOf(arg string, v starlark.Value) ([]lib.Message, error) {
	x, err := value.ToGo(v)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	var a struct {
		Messages *[]lib.Message `json:"messages"`
	}
	if err := json.Unmarshal(raw, &a); err != nil || a.Messages == nil {
		return nil, diag.Usagef("istioctl.diff_analyses", "%s is a %s, want what istioctl.analyze returned", arg, v.Type())
	}
	return *a.Messages, nil
}

func compareAnalyses(before, after []lib.Message) *analysisDiff {
	d := &analysisDiff{OK: true, New: []string{}, Gone: []string{}, Stays: []string{}}
	was := linesOf(before)
	for i, line := range linesOf(after) {
		if j := slices.Index(was, line); j >= 0 {
			was = slices.Delete(was, j, j+1)
			d.Stays = append(d.Stays, line)
			continue
		}
		d.New = append(d.New, line)
		d.OK = d.OK && after[i].Level != lib.LevelError
	}
	d.Gone = append(d.Gone, was...)
	return d
}

func linesOf(ms []lib.Message) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = string(m.Level) + ": " + sentence(m)
	}
	return out
}
