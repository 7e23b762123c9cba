package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"rutter.dev/rutter/runtime/diag"
)

// document reads the nodes of a YAML file and collects what is wrong with them.
type document struct {
	file  string
	lines []string
	errs  []error
}

// node is one value of the file and where it is, "windows[2].from".
type node struct {
	*yaml.Node
	path string
}

func newDocument(file, text string) *document {
	return &document{file: file, lines: strings.Split(text, "\n")}
}

// parse is the root of the file, nil where that is empty or no YAML.
func (d *document) parse(text string) *node {
	dec := yaml.NewDecoder(strings.NewReader(text))
	root := &yaml.Node{}
	err := dec.Decode(root)
	if err != nil {
		d.broken(err, text)
		return nil
	}
	var second yaml.Node
	if dec.Decode(&second) == nil {
		d.fail(&node{&second, ""}, "a second document", "one document")
	}
	if len(root.Content) == 0 {
		return nil
	}
	return &node{root.Content[0], ""}
}

// broken takes up what the YAML parser says; an empty file is no error. The
// parser tells the line in words only.
func (d *document) broken(err error, text string) {
	if strings.TrimSpace(text) == "" || err.Error() == "EOF" {
		return
	}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	pos := diag.Pos{File: d.file}
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if number, after, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				pos.Line, msg = n, after
			}
		}
	}
	d.errs = append(d.errs, &diag.Error{Code: diag.Usage, Pos: pos, Problem: "is no YAML: " + msg, Source: diag.Excerpt(pos, d.line(pos.Line))})
}

func (d *document) line(n int) string {
	if n < 1 || n > len(d.lines) {
		return ""
	}
	return strings.TrimRight(d.lines[n-1], "\r")
}

// fail notes that something is wrong with n.
func (d *document) fail(n *node, problem, expect string) {
	pos := diag.Pos{File: d.file, Line: n.Line, Col: n.Column}
	if n.path != "" {
		problem = n.path + ": " + problem
	}
	d.errs = append(d.errs, &diag.Error{Code: diag.Usage, Pos: pos, Problem: problem, Expect: expect, Source: diag.Excerpt(pos, d.line(pos.Line))})
}

// err is all that is wrong, in the order of the file.
func (d *document) err() error {
	slices.SortStableFunc(d.errs, func(a, b error) int {
		x, y := a.(*diag.Error).Pos, b.(*diag.Error).Pos
		if x.Line != y.Line {
			return x.Line - y.Line
		}
		return x.Col - y.Col
	})
	return errors.Join(d.errs...)
}

// key is one key that a mapping may have.
type key struct {
	name     string
	required bool
	read     func(*node)
}

// mapping reads the keys of a mapping, each at most once; one that is not known
// is an error, with the one that may have been meant.
func (d *document) mapping(n *node, keys ...key) {
	if !d.is(n, yaml.MappingNode, "keys and values") {
		return
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at := &node{n.Content[i], n.path}
		name := at.Value
		below := &node{n.Content[i+1], join(n.path, name)}
		j := slices.Index(names, name)
		switch {
		case at.Kind != yaml.ScalarNode || at.Tag == "!!merge":
			d.fail(at, "a key that is no word", "one of "+strings.Join(names, ", "))
		case j < 0:
			problem := fmt.Sprintf("unknown key %q", name)
			if near := diag.Nearest(name, names); near != "" {
				problem += fmt.Sprintf("; did you mean %q?", near)
			}
			d.fail(at, problem, strings.Join(names, ", "))
		case seen[name]:
			d.fail(at, fmt.Sprintf("key %q comes twice", name), "each key once")
		default:
			seen[name] = true
			keys[j].read(below)
		}
	}
	for _, k := range keys {
		if k.required && !seen[k.name] {
			d.fail(n, fmt.Sprintf("has no key %q", k.name), "one")
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// is reports whether n is of the kind, which may be plain only: a file that
// many have to read uses no anchors, aliases and tags.
func (d *document) is(n *node, kind yaml.Kind, expect string) bool {
	got := map[yaml.Kind]string{yaml.MappingNode: "keys and values", yaml.SequenceNode: "a list", yaml.ScalarNode: "a word or number", yaml.AliasNode: "an alias"}[n.Kind]
	switch {
	case n.Kind == yaml.AliasNode, n.Anchor != "":
		d.fail(n, "anchors and aliases are not taken", expect)
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, fmt.Sprintf("tag %s is not taken", n.Tag), expect)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null" && kind != yaml.ScalarNode:
		if kind != yaml.SequenceNode || strings.ContainsAny(n.path, ".[") {
			d.fail(n, "is empty", expect)
		}
		return false // else a list of the file without items yet
	case n.Kind != kind:
		d.fail(n, "got "+got, expect)
	default:
		return true
	}
	return false
}

// list calls each for the items of a list.
func (d *document) list(n *node, each func(*node)) {
	if !d.is(n, yaml.SequenceNode, "a list") {
		return
	}
	for i, c := range n.Content {
		each(&node{c, fmt.Sprintf("%s[%d]", n.path, i+1)})
	}
}

// text is a non-empty scalar as it is written, "" where it is none.
func (d *document) text(n *node, expect string) string {
	if !d.is(n, yaml.ScalarNode, expect) {
		return ""
	}
	s := strings.TrimSpace(n.Value)
	switch {
	case n.Tag == "!!null", s == "":
		d.fail(n, "is empty", expect)
		return ""
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }):
		d.fail(n, "holds a control character", expect)
		return ""
	}
	return s
}

// texts is a list of scalars.
func (d *document) texts(n *node, expect string) []string {
	var out []string
	d.list(n, func(c *node) {
		if s := d.text(c, expect); s != "" {
			out = append(out, s)
		}
	})
	return out
}

// word is one of several.
func (d *document) word(n *node, words ...string) string {
	expect := strings.Join(words, ", ")
	s := d.text(n, expect)
	if s == "" || slices.Contains(words, s) {
		return s
	}
	problem := fmt.Sprintf("got %q", s)
	if near := diag.Nearest(s, words); near != "" {
		problem += fmt.Sprintf("; did you mean %q?", near)
	}
	d.fail(n, problem, expect)
	return ""
}

// count is a whole number of what, at least least.
func (d *document) count(n *node, least int, what string) int {
	expect := fmt.Sprintf("a number of %s, at least %d", what, least)
	s := d.text(n, expect)
	if s == "" {
		return least
	}
	i, err := strconv.Atoi(s)
	switch {
	case strings.HasSuffix(s, "%"):
		d.fail(n, fmt.Sprintf("%s is a share", s), expect)
	case err != nil:
		d.fail(n, fmt.Sprintf("%q is no whole number", s), expect)
	case i < least:
		d.fail(n, fmt.Sprintf("is %d", i), expect)
	case i > maxCount:
		d.fail(n, fmt.Sprintf("is %d", i), fmt.Sprintf("at most %d", maxCount))
	default:
		return i
	}
	return least
}

const maxCount = 1_000_000

// number is a real number.
func (d *document) number(n *node) *float64 {
	const expect = "a number such as 0.01"
	s := d.text(n, expect)
	if s == "" {
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case strings.HasSuffix(s, "%"):
		d.fail(n, fmt.Sprintf("%s is a share", s), expect+", in the unit of the query's answer")
	case err != nil:
		d.fail(n, fmt.Sprintf("%q is no number", s), expect)
	case f != f || f > 1e300 || f < -1e300:
		d.fail(n, fmt.Sprintf("%q is no bound", s), expect)
	default:
		return &f
	}
	return nil
}

// duration is a positive span of time with its unit.
func (d *document) duration(n *node) time.Duration {
	const expect = "a duration such as 30s, 10m or 1h30m"
	s := d.text(n, expect)
	if s == "" {
		return 0
	}
	v, err := parseDuration(s)
	switch {
	case isNumber(s):
		d.fail(n, fmt.Sprintf("%s has no unit; did you mean %ss or %sm?", s, s, s), expect)
	case err != nil:
		d.fail(n, fmt.Sprintf("%q is no duration", s), expect)
	case v <= 0:
		d.fail(n, "is "+s, "more than nothing")
	default:
		return v
	}
	return 0
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// patterns are shell patterns.
func (d *document) patterns(n *node, expect string) []string {
	var out []string
	d.list(n, func(c *node) {
		if s := d.pattern(c, expect); s != "" {
			out = append(out, s)
		}
	})
	return out
}

func (d *document) pattern(n *node, expect string) string {
	s := d.text(n, expect)
	if s == "" {
		return ""
	}
	if _, err := path.Match(s, ""); err != nil {
		d.fail(n, fmt.Sprintf("pattern %q: %v", s, err), expect)
		return ""
	}
	return s
}
