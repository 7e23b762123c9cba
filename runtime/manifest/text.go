package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/plain"
)

const contextLines = 3

// Unified is the unified diff of two states of one object, either of which may
// be nil. Server-side noise is left out, fields are in alphabetical order, and
// Secrets are masked. It is "" when nothing that counts differs.
func Unified(ref cluster.Ref, before, after *cluster.Object) (string, error) {
	was, is := maskPair(before, after)
	a, err := lines(was)
	if err != nil {
		return "", fmt.Errorf("%s: %w", ref, err)
	}
	b, err := lines(is)
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
	return "--- " + name(ref, before, "live") + "\n+++ " + name(ref, after, "after") + "\n" + unified(a[from:endA], b[from:endB], contextLines, from), nil
}

func name(ref cluster.Ref, o *cluster.Object, which string) string {
	if o == nil {
		return ref.String() + " (absent)"
	}
	return ref.String() + " (" + which + ")"
}

// lines are an object, masked already, as YAML, each line with its end; none of nil.
func lines(o *cluster.Object) ([]string, error) {
	if o == nil {
		return nil, nil
	}
	fields := cluster.Normal(o, cluster.NormalizeOptions{}).Object
	var text []byte
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		var err error
		if text, err = plain.AppendYAML(text, k, fields[k]); err != nil {
			return nil, err
		}
	}
	all := strings.SplitAfter(string(text), "\n")
	return all[:len(all)-1], nil
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
