package value

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// Decode brings back what Encode wrote; the value is frozen.
func (c *Codec) Decode(raw json.RawMessage) (starlark.Value, error) {
	v, err := c.decode(raw, 0)
	if err != nil {
		return nil, fmt.Errorf("recorded value: %w", err)
	}
	v.Freeze()
	return v, nil
}

func (c *Codec) decode(raw []byte, depth int) (starlark.Value, error) {
	if depth > 2*maxDepth {
		return nil, fmt.Errorf("nests deeper than %d levels", 2*maxDepth)
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return nil, errors.New("is empty")
	}
	switch raw[0] {
	case '[':
		items, err := c.decodeItems(raw, depth)
		return starlark.NewList(items), err
	case '{':
		return c.decodeDict(raw, depth)
	}
	v, err := decodePlain(raw)
	if err != nil {
		return nil, err
	}
	return wrap(v, place{}), nil
}

func (c *Codec) decodeItems(raw []byte, depth int) ([]starlark.Value, error) {
	var parts []json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		return nil, err
	}
	out := make([]starlark.Value, len(parts))
	for i, p := range parts {
		v, err := c.decode(p, depth+1)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		out[i] = v
	}
	return out, nil
}

func (c *Codec) decodeDict(raw []byte, depth int) (starlark.Value, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	d := starlark.NewDict(0)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		k, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("got key %v, want string", tok)
		}
		if k == tagKey {
			return c.decodeTagged(raw, depth)
		}
		var part json.RawMessage
		if err := dec.Decode(&part); err != nil {
			return nil, err
		}
		v, err := c.decode(part, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
		if err := d.SetKey(starlark.String(k), v); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	return d, nil
}

func (c *Codec) decodeTagged(raw []byte, depth int) (starlark.Value, error) {
	var t struct {
		Tag   string          `json:"$rutter"`
		Kind  string          `json:"kind"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, err
	}
	switch t.Tag {
	case "handle":
		decode := c.Decoders[t.Kind]
		if decode == nil {
			return nil, fmt.Errorf("this rutter cannot read a value of kind %q", t.Kind)
		}
		return decode(t.Value)
	case "sealed":
		return c.unseal(t.Value, depth)
	case "object", "objects":
		v, err := decodePlain(t.Value)
		if err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case map[string]any:
			return NewObject(v), nil
		case []any:
			return &List{v: v, at: place{index: -1}}, nil
		}
		return nil, fmt.Errorf("got %T, want an object", v)
	case "tuple", "set", "dict":
		return c.decodeSequence(t.Tag, t.Value, depth)
	case "struct":
		v, err := c.decode(t.Value, depth+1)
		if err != nil {
			return nil, err
		}
		d, ok := v.(*starlark.Dict)
		if !ok {
			return nil, fmt.Errorf("got %s, want the fields of a struct", v.Type())
		}
		return starlarkstruct.FromKeywords(starlarkstruct.Default, d.Items()), nil
	}
	return decodeScalar(t.Tag, t.Value)
}

func (c *Codec) unseal(raw []byte, depth int) (starlark.Value, error) {
	if c.Open == nil {
		return nil, errors.New("is encrypted; give the age key of the run")
	}
	var sealed []byte
	if err := json.Unmarshal(raw, &sealed); err != nil {
		return nil, err
	}
	b, err := c.Open(sealed)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return c.decode(b, depth+1)
}

func (c *Codec) decodeSequence(tag string, raw []byte, depth int) (starlark.Value, error) {
	items, err := c.decodeItems(raw, depth)
	if err != nil || tag == "tuple" {
		return starlark.Tuple(items), err
	}
	set, d := starlark.NewSet(len(items)), starlark.NewDict(len(items))
	for _, it := range items {
		if tag == "set" {
			err = set.Insert(it)
		} else if kv, ok := it.(*starlark.List); ok && kv.Len() == 2 {
			err = d.SetKey(kv.Index(0), kv.Index(1))
		} else {
			err = errors.New("got no pair of key and value")
		}
		if err != nil {
			return nil, err
		}
	}
	if tag == "set" {
		return set, nil
	}
	return d, nil
}

func decodeScalar(tag string, raw []byte) (starlark.Value, error) {
	if tag == "duration" {
		n, ok := new(big.Int).SetString(string(raw), 10)
		if !ok || !n.IsInt64() {
			return nil, fmt.Errorf("got %s, want a duration in nanoseconds", raw)
		}
		return startime.Duration(n.Int64()), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	switch tag {
	case "float":
		f, err := strconv.ParseFloat(s, 64)
		return starlark.Float(f), err
	case "bytes":
		var b []byte
		_, err := fmt.Sscanf(s, "%x", &b)
		if s == "" {
			err = nil
		}
		return starlark.Bytes(b), err
	case "version":
		if s == "" {
			return Version{}, nil
		}
		return ParseVersion(s)
	case "quantity":
		return ParseQuantity(s)
	case "secret":
		return NewSecret(s), nil
	case "time":
		t, err := time.Parse(time.RFC3339Nano, s)
		return startime.Time(t), err
	}
	return nil, fmt.Errorf("this rutter does not know values tagged %q", tag)
}
