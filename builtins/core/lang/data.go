package lang

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	starjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/value"
)

// maxText bounds what is decoded, in bytes.
const maxText = value.MaxText

type encodeArgs struct {
	X      starlark.Value `star:"x,positional" doc:"Data: dict, list, string, number, bool, None or a cluster object. Material of Secrets is written as <secret>."`
	Indent string         `star:"indent" doc:"Text to indent each level by; none writes one line."`
}

type yamlEncodeArgs struct {
	X starlark.Value `star:"x,positional" doc:"Data: dict, list, string, number, bool, None or a cluster object. Material of Secrets is written as <secret>."`
}

type decodeArgs struct {
	Text string `star:"text,positional" doc:"Text to decode."`
}

func jsonBuiltins() []*builtin.Spec {
	return []*builtin.Spec{
		builtin.NewPure(builtin.PureDef[encodeArgs]{
			Name: "json.encode", Returns: "string", Doc: "Writes data as JSON, dict keys sorted.",
			Example: `json.encode({"a": [1, 2.0]})`,
			Do: func(c *builtin.Call, a *encodeArgs) (any, error) {
				b, err := encodeJSON(c.Thread, a.X)
				if err != nil || a.Indent == "" {
					return string(b), err
				}
				if len(a.Indent) > maxIndent {
					return nil, diag.Usagef("json.encode", "indent: got %d characters, want at most %d", len(a.Indent), maxIndent)
				}
				return starlark.Call(c.Thread, starjson.Module.Members["indent"], starlark.Tuple{starlark.String(b)},
					[]starlark.Tuple{{starlark.String("indent"), starlark.String(a.Indent)}})
			},
		}),
		builtin.NewPure(builtin.PureDef[decodeArgs]{
			Name: "json.decode", Returns: "dict, list, string, number, bool or None", Doc: "Reads one JSON value.",
			Example: `json.decode('{"a": [1, 2.0]}')["a"]`,
			Do: func(_ *builtin.Call, a *decodeArgs) (any, error) {
				if err := bounded("json.decode", a.Text); err != nil {
					return nil, err
				}
				x, err := value.DecodeJSON([]byte(a.Text))
				if err != nil {
					return nil, &diag.Error{Subject: "json.decode", Err: err}
				}
				return value.Plain(x)
			},
		}),
	}
}

// maxIndent bounds what stands before each line, times the levels.
const maxIndent = 16

func encodeJSON(t *starlark.Thread, x starlark.Value) ([]byte, error) {
	if _, err := value.TextSize(x, maxText); err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "json.encode", Err: err}
	}
	v, err := starlark.Call(t, starjson.Module.Members["encode"], starlark.Tuple{x}, nil)
	if err != nil {
		return nil, &diag.Error{Subject: "json.encode", Err: err}
	}
	s, _ := starlark.AsString(v)
	return []byte(s), nil
}

func bounded(name, text string) error {
	if err := plain.Written.Check([]byte(text)); err != nil {
		return &diag.Error{Code: diag.Usage, Subject: name, Problem: "the text", Err: err}
	}
	return nil
}

func yamlBuiltins() []*builtin.Spec {
	return []*builtin.Spec{
		builtin.NewPure(builtin.PureDef[yamlEncodeArgs]{
			Name: "yaml.encode", Returns: "string", Doc: "Writes data as one YAML document, dict keys sorted.",
			Example: `yaml.encode({"a": [1, 2.0]})`,
			Do: func(c *builtin.Call, a *yamlEncodeArgs) (any, error) {
				b, err := encodeJSON(c.Thread, a.X)
				if err != nil {
					return nil, err
				}
				out, err := yaml.JSONToYAML(b)
				return string(out), err
			},
		}),
		builtin.NewPure(builtin.PureDef[decodeArgs]{
			Name: "yaml.decode", Returns: "dict, list, string, number, bool or None",
			Doc:     "Reads one YAML document. Aliases are expanded within bounds; duplicate keys are refused.",
			Example: `yaml.decode("a: [1, 2]")["a"]`,
			Do: func(_ *builtin.Call, a *decodeArgs) (any, error) {
				docs, err := decodeYAML("yaml.decode", a.Text)
				switch {
				case err != nil:
					return nil, err
				case len(docs) > 1:
					return nil, diag.Usagef("yaml.decode", "got %d documents, want one; use yaml.decode_all", len(docs))
				case len(docs) == 0:
					return nil, nil
				}
				return docs[0], nil
			},
		}),
		builtin.NewPure(builtin.PureDef[decodeArgs]{
			Name: "yaml.decode_all", Returns: "list", Doc: "Reads all documents of a YAML text, leaving out empty ones.",
			Example: `len(yaml.decode_all("a: 1\n---\nb: 2"))`,
			Do: func(_ *builtin.Call, a *decodeArgs) (any, error) {
				docs, err := decodeYAML("yaml.decode_all", a.Text)
				if err != nil {
					return nil, err
				}
				return starlark.NewList(docs), nil
			},
		}),
	}
}

func decodeYAML(name, text string) ([]starlark.Value, error) {
	if err := bounded(name, text); err != nil {
		return nil, err
	}
	var out []starlark.Value
	docs := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader([]byte(text))))
	defer docs.Close() //nolint:errcheck // a reader in memory
	for n := 1; ; n++ {
		doc, err := readDocument(docs)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err == nil && len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		var v starlark.Value
		if err == nil {
			v, err = decodeDocument(doc)
		}
		if err != nil {
			return nil, &diag.Error{Subject: name, Problem: fmt.Sprintf("document %d", n), Err: err}
		}
		if v != starlark.None {
			out = append(out, v)
		}
	}
}

// readDocument reads one document whole; the decoder gives it in pieces.
func readDocument(r io.Reader) ([]byte, error) {
	var doc []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		doc = append(doc, buf[:n]...)
		if !errors.Is(err, io.ErrShortBuffer) {
			return doc, err
		}
	}
}

func decodeDocument(doc []byte) (starlark.Value, error) {
	b, err := plain.Written.JSON(doc)
	if err != nil {
		return nil, err
	}
	x, err := value.DecodeJSON(b)
	if err != nil {
		return nil, err
	}
	return value.Plain(x)
}
