package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"go.yaml.in/yaml/v2"

	"rutter.dev/rutter/runtime/cluster"
)

const contextLines = 3

// Unified is the unified diff of two states of one object, either of which may
// be nil. Server-side noise is left out, fields are in alphabetical order, and
// Secrets are masked. It is "" when nothing that counts differs.
func Unified(ref cluster.Ref, before, after *cluster.Object) (string, error) {
	was, is := maskPair(before, after)
	a, b, err := pairLines(was, is)
	if err != nil {
		return "", fmt.Errorf("%s: %w", ref, err)
	}
	head, tail := common(a, b)
	if head == len(a) && head == len(b) {
		return "", nil
	}
	// Only the part that differs, with its context, goes to the matcher: its
	// time grows with the square of what it is given, and a CRD has thousands
	// of lines.
	from := max(0, head-contextLines)
	endA, endB := min(len(a), len(a)-tail+contextLines), min(len(b), len(b)-tail+contextLines)
	d := difflib.UnifiedDiff{
		A: a[from:endA], B: b[from:endB], Context: contextLines,
		FromFile: name(ref, before, "live"), ToFile: name(ref, after, "after"),
	}
	text, err := difflib.GetUnifiedDiffString(d)
	if err != nil {
		return "", fmt.Errorf("%s: %w", ref, err)
	}
	return shift(text, from), nil
}

func name(ref cluster.Ref, o *cluster.Object, which string) string {
	if o == nil {
		return ref.String() + " (absent)"
	}
	return ref.String() + " (" + which + ")"
}

// pairLines are two states of an object, masked already, as YAML, either of which
// may be nil. What they have in common at the top is written once: the schema of a
// definition takes longer than all else. It goes to the encoder as it is: by way of
// JSON, as sigs.k8s.io/yaml does for the sake of struct tags, it would be parsed
// again first.
func pairLines(was, is *cluster.Object) (a, b []string, err error) {
	old, now := normal(was), normal(is)
	keys := slices.AppendSeq(slices.Collect(maps.Keys(old)), maps.Keys(now))
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		o, inOld := old[k]
		n, inNow := now[k]
		var text []string
		if inOld {
			if text, err = lines(k, o); err != nil {
				return nil, nil, err
			}
			a = append(a, text...)
		}
		if inNow {
			if !inOld || !reflect.DeepEqual(o, n) {
				if text, err = lines(k, n); err != nil {
					return nil, nil, err
				}
			}
			b = append(b, text...)
		}
	}
	return a, b, nil
}

func normal(o *cluster.Object) map[string]any {
	if o == nil {
		return nil
	}
	return cluster.Normal(o, cluster.NormalizeOptions{}).Object
}

// lines are one field of an object as YAML, each line with its end.
func lines(key string, v any) ([]string, error) {
	y, err := yaml.Marshal(map[string]any{key: v})
	if err != nil {
		return nil, err
	}
	l := strings.SplitAfter(string(y), "\n")
	return l[:len(l)-1], nil
}

// common counts the equal lines at both ends.
func common(a, b []string) (head, tail int) {
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

// shift moves the line numbers of every hunk by n, and ends the last line.
func shift(text string, n int) string {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	var b strings.Builder
	for _, l := range strings.SplitAfter(text, "\n") {
		if n > 0 && strings.HasPrefix(l, "@@ ") {
			l = shiftHunk(l, n)
		}
		b.WriteString(l)
	}
	return b.String()
}

// shiftHunk reads "@@ -1,3 +1,4 @@".
func shiftHunk(l string, n int) string {
	f := strings.Fields(l)
	if len(f) < 4 {
		return l
	}
	for i := 1; i <= 2; i++ {
		var line int
		start, count, _ := strings.Cut(f[i][1:], ",")
		if _, err := fmt.Sscan(start, &line); err != nil {
			return l
		}
		f[i] = fmt.Sprintf("%c%d", f[i][0], line+n)
		if count != "" {
			f[i] += "," + count
		}
	}
	return strings.Join(f, " ") + "\n"
}
