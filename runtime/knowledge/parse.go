package knowledge

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v3"

	"rutter.dev/rutter/runtime/diag"
)

// maxFile bounds a file of knowledge, in bytes.
const maxFile = 4 << 20

// document is one YAML document of a file: a release, the skew rules, or fields that
// releases dropped.
type document struct {
	Istio      string   `yaml:"istio"` // "1.24"
	Kubernetes *k8s     `yaml:"kubernetes"`
	Sources    []string `yaml:"sources"`
	Notes      []*Note  `yaml:"notes"`
	Skew       *Skew    `yaml:"skew"`

	Removed []*RemovedField `yaml:"removedFields"`
}

type k8s struct {
	Min string `yaml:"min"`
	Max string `yaml:"max"`
}

// parse reads a file of YAML documents. Its errors are diag.Errors with the
// line; unknown keys are errors.
func parse(file string, text []byte) (*Base, error) {
	if len(text) > maxFile {
		return nil, wrong(diag.Pos{File: file}, fmt.Errorf("%d bytes, at most %d", len(text), maxFile))
	}
	strict, nodes := yaml.NewDecoder(bytes.NewReader(text)), yaml.NewDecoder(bytes.NewReader(text))
	strict.KnownFields(true)
	out := &Base{}
	for {
		var (
			doc  document
			node yaml.Node
		)
		err := nodes.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, unreadable(file, err)
		}
		if err := aliased(&node); err != nil {
			return nil, wrong(diag.Pos{File: file, Line: err.line}, err)
		}
		if err := strict.Decode(&doc); err != nil {
			return nil, unreadable(file, err)
		}
		if err := out.take(file, &doc, &node); err != nil {
			return nil, err
		}
	}
	if len(out.releases) == 0 && len(out.skew.Sources) == 0 && len(out.removed) == 0 {
		return nil, wrong(diag.Pos{File: file}, errors.New("it holds no release"))
	}
	return out, nil
}

// take adds a document.
func (b *Base) take(file string, doc *document, node *yaml.Node) error {
	at := func(n *yaml.Node) diag.Pos { return diag.Pos{File: file, Line: n.Line} }
	root := node
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		root = root.Content[0]
	}
	if doc.Skew != nil {
		if len(doc.Skew.Sources) == 0 || doc.Skew.InPlace == 0 || doc.Skew.ByRevision == 0 {
			return wrong(at(root), errors.New("skew needs inPlace and byRevision of at least 1, and sources"))
		}
		b.skew = *doc.Skew
	}
	if n, err := b.addFields(doc.Removed, items(root, "removedFields")); err != nil {
		return wrong(at(n), err)
	}
	if doc.Istio == "" && (doc.Skew != nil || len(doc.Removed) > 0) {
		return nil
	}
	r, err := doc.release()
	if err != nil {
		return wrong(at(root), err)
	}
	if b.release(r.major, r.minor) != nil {
		return wrong(at(root), fmt.Errorf("istio %s is there twice", r.Istio))
	}
	lines := items(root, "notes")
	for i, n := range doc.Notes {
		pos := at(lines[i])
		if n == nil {
			return wrong(pos, errors.New("an empty note"))
		}
		n.Istio, n.Pos = r.Istio, pos
		if err := n.check(); err != nil {
			return wrong(pos, fmt.Errorf("note %s: %w", cmp.Or(n.ID, "without an id"), err))
		}
		if slices.ContainsFunc(r.Notes, func(o *Note) bool { return o.ID == n.ID }) {
			return wrong(pos, fmt.Errorf("note %s is there twice", n.ID))
		}
		r.Notes = append(r.Notes, n)
	}
	b.releases = append(b.releases, r)
	return nil
}

// release reads what a document says of the release itself. A range of
// Kubernetes may be left out where a file is laid over one that has it.
func (d *document) release() (*Release, error) {
	v, err := minorOf(d.Istio)
	if err != nil {
		return nil, fmt.Errorf("istio: %w", err)
	}
	r := &Release{Istio: d.Istio, Sources: d.Sources, major: v.Major(), minor: v.Minor()}
	if d.Kubernetes == nil {
		return r, nil
	}
	low, err := minorOf(d.Kubernetes.Min)
	if err != nil {
		return nil, fmt.Errorf("kubernetes.min: %w", err)
	}
	high, err := minorOf(d.Kubernetes.Max)
	if err != nil {
		return nil, fmt.Errorf("kubernetes.max: %w", err)
	}
	if low.Major() != 1 || high.Major() != 1 || low.GreaterThan(high) {
		return nil, fmt.Errorf("kubernetes: %s to %s is no range of 1.x versions", d.Kubernetes.Min, d.Kubernetes.Max)
	}
	if len(d.Sources) == 0 {
		return nil, errors.New("kubernetes has no sources beside it")
	}
	r.Kubernetes = Range{Min: int(low.Minor()), Max: int(high.Minor())} // #nosec G115 -- a minor of at most 4 digits
	return r, nil
}

var minorVersion = regexp.MustCompile(`^\d{1,3}\.\d{1,4}$`)

func minorOf(text string) (*semver.Version, error) {
	if !minorVersion.MatchString(text) {
		return nil, fmt.Errorf("%q is no minor version, as \"1.31\" is (in quotes: YAML takes 1.30 for 1.3)", text)
	}
	return semver.NewVersion(text)
}

var noteID = regexp.MustCompile(`^istio-(\d+\.\d+)-[a-z0-9]+(-[a-z0-9]+)*$`)

// check refuses a note that leaves its reader without an answer, and prepares
// its detections.
func (n *Note) check() error {
	m := noteID.FindStringSubmatch(n.ID)
	if m == nil || m[1] != n.Istio {
		return fmt.Errorf("id: want istio-%s- and lower-case words joined by dashes", n.Istio)
	}
	for _, f := range []struct{ name, text string }{
		{"title", n.Title}, {"changes", n.Changes}, {"do", n.Do}, {"reason", n.Reason},
	} {
		if strings.TrimSpace(f.text) == "" {
			return fmt.Errorf("%s is missing", f.name)
		}
	}
	if len(n.Sources) == 0 || len(n.Affects) == 0 {
		return errors.New("sources and affects are missing")
	}
	if !slices.Contains([]Severity{Removed, Changed, Ineffective, Notice}, n.Severity) {
		return fmt.Errorf("severity %q is none of removed, changed, ineffective, notice", n.Severity)
	}
	switch n.Class {
	case Detector, Manual, Irrelevant:
	default:
		return fmt.Errorf("class %q is none of detector, manual, irrelevant", n.Class)
	}
	if (n.Class == Detector) != (len(n.Detect) > 0) {
		return errors.New("a note of class detector has detect, and no other has")
	}
	for _, d := range n.Detect {
		if d == nil {
			return errors.New("an empty detection")
		}
		if err := d.compile(); err != nil {
			return fmt.Errorf("detect: %w", err)
		}
	}
	n.Changes, n.Do, n.Reason = flat(n.Changes), flat(n.Do), flat(n.Reason)
	return nil
}

// flat is a text on one line.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// items are the nodes of a list in a mapping.
func items(root *yaml.Node, key string) []*yaml.Node {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key {
			return root.Content[i+1].Content
		}
	}
	return nil
}

type aliasError struct{ line int }

func (e *aliasError) Error() string { return "aliases are not taken" }

// aliased refuses aliases, by which a small file could stand for a large one.
func aliased(n *yaml.Node) *aliasError {
	if n.Kind == yaml.AliasNode {
		return &aliasError{n.Line}
	}
	for _, c := range n.Content {
		if err := aliased(c); err != nil {
			return err
		}
	}
	return nil
}

var (
	lineOf     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownKey = regexp.MustCompile(`^field (\S+) not found in type knowledge\.(\w+)$`)
)

// unreadable lays an error of the YAML library out: the first, with its line.
func unreadable(file string, err error) error {
	text := err.Error()
	var t *yaml.TypeError
	if errors.As(err, &t) && len(t.Errors) > 0 {
		text = t.Errors[0]
	}
	pos := diag.Pos{File: file}
	if m := lineOf.FindStringSubmatch(text); m != nil {
		pos.Line, _ = strconv.Atoi(m[1]) // digits; a line too large for an int is no line
		text = m[2]
	}
	if m := unknownKey.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("unknown key %q", m[1])
		if near := diag.Nearest(m[1], keys); near != "" {
			text += "; did you mean " + near + "?"
		}
	}
	return wrong(pos, errors.New(strings.TrimPrefix(text, "yaml: ")))
}

// keys are all keys of a file.
var keys = []string{
	"istio", "kubernetes", "min", "max", "sources", "notes", "skew", "inPlace", "byRevision", "nodeAgents", "removedFields", "path", "since", "instead",
	"id", "title", "severity", "changes", "do", "class", "reason", "affects", "detect",
	"in", "says", "names", "labels", "all", "shared", "with", "mine", "theirs", "elsewhere", "field", "env", "set", "is", "not", "matches", "older", "any",
}

func wrong(pos diag.Pos, err error) error {
	return &diag.Error{Code: diag.Usage, Pos: pos, Problem: err.Error(), Changed: "nothing", Next: "correct the file of knowledge; the format is that of runtime/knowledge/data in rutter's source"}
}
