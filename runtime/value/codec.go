package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// tagKey marks an encoded value that is not plain data. A dict that holds this
// key itself is written as tagged items, so user data is never taken for a tag.
const tagKey = "$rutter"

// Codec encodes step values for the journal and brings them back. The zero
// Codec knows data and objects, and refuses handles and Secret material.
// Decoding what Encode gave yields an equal, frozen value.
type Codec struct {
	// Decoders rebuild handles, by HandleKind.
	Decoders map[string]Decoder
	// Seal and Open encrypt and decrypt Secret material (ruling 9); nil means
	// that such values are refused.
	Seal, Open func([]byte) ([]byte, error)
}

// ErrSecret is wrapped by Encode's error about Secret material without a Seal.
var ErrSecret = errors.New("holds Secret material, which is recorded only encrypted; give the run an age key")

// Encode is v as JSON. The error names the path of what cannot be recorded.
func (c *Codec) Encode(v starlark.Value) (json.RawMessage, error) {
	if err := bounded(v); err != nil {
		return nil, err
	}
	b, err := c.encode(nil, v, "", 0)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (c *Codec) encode(b []byte, v starlark.Value, path string, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%snests deeper than %d levels, or holds itself: %w", at(path), maxDepth, ErrNotData)
	}
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return append(b, "null"...), nil
	case starlark.Bool:
		return strconv.AppendBool(b, bool(v)), nil
	case starlark.String:
		return appendString(b, string(v)), nil
	case starlark.Int:
		return append(b, v.String()...), nil
	case starlark.Float:
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return tagged(b, "float", appendString(nil, strconv.FormatFloat(f, 'g', -1, 64))), nil
		}
		return appendFloat(b, float64(v)), nil
	case starlark.Bytes:
		return tagged(b, "bytes", appendString(nil, fmt.Sprintf("%x", string(v)))), nil
	case *Object:
		return c.encodeView(b, "object", v.m, v.at.secret, path)
	case *List:
		return c.encodeView(b, "objects", v.v, v.at.secret, path)
	case *Secret:
		return c.seal(b, "secret", appendString(nil, v.s), path)
	case Version:
		return tagged(b, "version", appendString(nil, v.String())), nil
	case Quantity:
		return tagged(b, "quantity", appendString(nil, v.String())), nil
	case startime.Duration:
		return tagged(b, "duration", strconv.AppendInt(nil, int64(v), 10)), nil
	case startime.Time:
		return tagged(b, "time", appendString(nil, time.Time(v).Format(time.RFC3339Nano))), nil
	case Handle:
		return c.encodeHandle(b, v, path)
	case *starlark.List:
		return c.encodeItems(b, v, path, depth)
	case starlark.Tuple:
		items, err := c.encodeItems(nil, v, path, depth)
		return tagged(b, "tuple", items), err
	case *starlark.Set:
		items, err := c.encodeItems(nil, v, path, depth)
		return tagged(b, "set", items), err
	case *starlark.Dict:
		return c.encodeDict(b, v, path, depth)
	case *starlarkstruct.Struct:
		fields, d := starlark.StringDict{}, starlark.NewDict(0)
		v.ToStringDict(fields)
		for _, k := range fields.Keys() {
			if err := d.SetKey(starlark.String(k), fields[k]); err != nil {
				return nil, err
			}
		}
		dict, err := c.encodeDict(nil, d, path, depth)
		return tagged(b, "struct", dict), err
	}
	return nil, notData(v, path)
}

func tagged(b []byte, tag string, body []byte) []byte {
	b = append(b, `{"`+tagKey+`":"`+tag+`","value":`...)
	return append(append(b, body...), '}')
}

func (c *Codec) encodeView(b []byte, tag string, v any, material bool, path string) ([]byte, error) {
	body := appendJSON(nil, v)
	if material || holdsMaterial(v) {
		return c.seal(b, tag, body, path)
	}
	return tagged(b, tag, body), nil
}

// holdsMaterial reports whether material of a Secret lies anywhere in v.
func holdsMaterial(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e != nil && holdsField(v, k, e) || holdsMaterial(e) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if holdsMaterial(e) {
				return true
			}
		}
	}
	return false
}

func (c *Codec) seal(b []byte, tag string, body []byte, path string) ([]byte, error) {
	if c.Seal == nil {
		if path == "" {
			path = "value"
		}
		return nil, fmt.Errorf("%s %w", path, ErrSecret)
	}
	sealed, err := c.Seal(tagged(nil, tag, body))
	if err != nil {
		return nil, fmt.Errorf("%sencrypt: %w", at(path), err)
	}
	text, err := json.Marshal(sealed)
	if err != nil {
		return nil, err
	}
	return tagged(b, "sealed", text), nil
}

func (c *Codec) encodeHandle(b []byte, h Handle, path string) ([]byte, error) {
	body, err := h.EncodeHandle()
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", at(path), h.HandleKind(), err)
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("%s%s: its encoding is no JSON", at(path), h.HandleKind())
	}
	b = append(b, `{"`+tagKey+`":"handle","kind":`...)
	b = append(appendString(b, h.HandleKind()), `,"value":`...)
	return append(append(b, body...), '}'), nil
}

func (c *Codec) encodeItems(b []byte, v starlark.Iterable, path string, depth int) ([]byte, error) {
	b = append(b, '[')
	i := 0
	for e := range starlark.Elements(v) {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = c.encode(b, e, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
			return nil, err
		}
		i++
	}
	return append(b, ']'), nil
}

// encodeDict keeps insertion order, which Starlark shows.
func (c *Codec) encodeDict(b []byte, d *starlark.Dict, path string, depth int) ([]byte, error) {
	plainKeys := true
	for _, k := range d.Keys() {
		s, ok := starlark.AsString(k)
		plainKeys = plainKeys && ok && s != tagKey
	}
	if !plainKeys {
		b = append(b, `{"`+tagKey+`":"dict","value":[`...)
	} else {
		b = append(b, '{')
	}
	for i, kv := range d.Items() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if !plainKeys {
			if b, err = c.encodeItems(b, kv, fmt.Sprintf("%s[%s]", path, kv[0]), depth+1); err != nil {
				return nil, err
			}
			continue
		}
		k, _ := starlark.AsString(kv[0])
		if b, err = c.encode(append(appendString(b, k), ':'), kv[1], join(path, k), depth+1); err != nil {
			return nil, err
		}
	}
	if !plainKeys {
		return append(b, "]}"...), nil
	}
	return append(b, '}'), nil
}
