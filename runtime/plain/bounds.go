package plain

import (
	"bytes"
	"fmt"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// Bounds are what a YAML text may be before it is parsed: parsing takes some
// hundred bytes for each of its marks, and aliases multiply what is there.
type Bounds struct {
	Bytes int // of the text
	Marks int // line ends, commas, colons, brackets: what begins a value
}

// The bounds of what people write (manifests, parameters, policies, what a
// script decodes) and of what is dumped from a cluster, in one document each. A
// whole rendered mesh is below 2 MiB and 100,000 marks.
var (
	Written = Bounds{Bytes: 16 << 20, Marks: 1_000_000}
	Dumped  = Bounds{Bytes: 512 << 20, Marks: 50_000_000}
)

// maxGrowth bounds how much longer the JSON of a YAML text may be than the text.
const maxGrowth = 8

// Check says what of b is beyond the bounds.
func (o Bounds) Check(b []byte) error {
	if len(b) > o.Bytes {
		return fmt.Errorf("is %d bytes long, want at most %d", len(b), o.Bytes)
	}
	n := 0
	for _, c := range b {
		switch c {
		case '\n', ',', ':', '[', '{':
			n++
		}
	}
	if n > o.Marks {
		return fmt.Errorf("has %d lines and values, want at most %d", n, o.Marks)
	}
	return nil
}

// JSON is a YAML (or JSON) document as JSON; keys that occur twice are errors.
// Aliases that make much more of it than is written are refused.
func (o Bounds) JSON(doc []byte) ([]byte, error) { return o.convert(doc, yaml.YAMLToJSONStrict) }

// LaxJSON is JSON where the last of equal keys counts.
func (o Bounds) LaxJSON(doc []byte) ([]byte, error) { return o.convert(doc, yaml.YAMLToJSON) }

func (o Bounds) convert(doc []byte, read func([]byte) ([]byte, error)) ([]byte, error) {
	if err := o.Check(doc); err != nil {
		return nil, err
	}
	if err := aliases(doc); err != nil {
		return nil, err
	}
	return read(doc)
}

// aliases refuses a document that its aliases make much longer than it is. The
// parser's own limit counts nodes, not how long they are.
func aliases(doc []byte) error {
	if bytes.IndexByte(doc, '&') < 0 || bytes.IndexByte(doc, '*') < 0 {
		return nil
	}
	var root yamlv3.Node
	if err := yamlv3.Unmarshal(doc, &root); err != nil {
		return nil //nolint:nilerr // who reads the document says what is wrong with it
	}
	g := growth{sizes: map[*yamlv3.Node]int{}, most: maxGrowth*len(doc) + 4096}
	n, err := g.size(&root)
	if err == nil && n > g.most {
		err = fmt.Errorf("is more than %d bytes long once its aliases are written out, and %d before", g.most, len(doc))
	}
	return err
}

// growth measures nodes with their aliases written out, each anchor once.
type growth struct {
	sizes map[*yamlv3.Node]int // -1: being measured
	most  int
}

func (g *growth) size(n *yamlv3.Node) (int, error) {
	if n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	if s, ok := g.sizes[n]; ok {
		if s < 0 {
			return 0, fmt.Errorf("line %d: the anchor %q holds an alias of itself", n.Line, n.Anchor)
		}
		return s, nil
	}
	if n.Anchor != "" {
		g.sizes[n] = -1
	}
	total := len(n.Value) + 4
	for _, c := range n.Content {
		s, err := g.size(c)
		if err != nil {
			return 0, err
		}
		if total += s; total > g.most {
			total = g.most + 1
		}
	}
	if n.Anchor != "" {
		g.sizes[n] = total
	}
	return total, nil
}

// Unmarshal reads a YAML document into v as sigs.k8s.io/yaml does, within bounds;
// unknown fields and keys that occur twice are errors.
func (o Bounds) Unmarshal(doc []byte, v any) error {
	if _, err := o.JSON(doc); err != nil {
		return err
	}
	return yaml.UnmarshalStrict(doc, v)
}
