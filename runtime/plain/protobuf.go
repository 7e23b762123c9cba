package plain

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// magic begins every answer of the API server in protobuf
// (k8s.io/apimachinery pkg/runtime/serializer/protobuf).
var magic = []byte("k8s\x00")

// IsProtobuf reports whether an answer is in Kubernetes' protobuf.
func IsProtobuf(raw []byte) bool { return bytes.HasPrefix(raw, magic) }

// Fields of runtime.Unknown, of a list and of its ListMeta.
const (
	unknownRaw      = 2
	unknownEncoding = 3
	listMeta        = 1
	listItems       = 2
	metaVersion     = 2
	metaContinue    = 3
)

// PackedList is a list in protobuf whose objects are not decoded yet.
type PackedList struct {
	Continue, ResourceVersion string
	raw                       []byte
}

// Unpack reads of a list in protobuf what it says of itself. It is false for what
// is no such list. raw is kept, and has to stay as it is until the objects are
// decoded.
func Unpack(raw []byte) (PackedList, bool) {
	l := PackedList{}
	if !IsProtobuf(raw) {
		return l, false
	}
	var meta []byte
	ok := each(raw[len(magic):], func(n protowire.Number, v []byte, _ uint64) bool {
		if n == unknownRaw {
			l.raw = v
		}
		return n != unknownEncoding || len(v) == 0
	}) && each(l.raw, func(n protowire.Number, v []byte, _ uint64) bool {
		if n == listMeta {
			meta = v
		}
		return true
	}) && each(meta, func(n protowire.Number, v []byte, _ uint64) bool {
		switch n {
		case metaVersion:
			l.ResourceVersion = string(v)
		case metaContinue:
			l.Continue = string(v)
		}
		return true
	})
	return l, ok
}

// Objects decodes the objects of a list as DecodeLean does those of the same list in
// JSON: without the managedFields of their metadata. Like there, they do not say of
// which kind they are. It is false where the list is not as the shape says, because
// the server is newer: then it has to be asked for JSON.
func (s *Shape) Objects(l PackedList) ([]map[string]any, bool) {
	p := unpacker{}
	var out []map[string]any
	ok := each(l.raw, func(n protowire.Number, v []byte, _ uint64) bool {
		if n != listItems {
			return n == listMeta
		}
		m, ok := p.message(v, s)
		out = append(out, m)
		return ok
	})
	return out, ok
}

// each calls f for the fields of a message: v is what a string, bytes or a message
// hold, n a number. It is false where f is, or where raw is no message of such
// fields.
func each(raw []byte, f func(number protowire.Number, v []byte, n uint64) bool) bool {
	for len(raw) > 0 {
		number, wire, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return false
		}
		raw = raw[n:]
		var v []byte
		var x uint64
		switch wire {
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(raw)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(raw)
		default:
			return false
		}
		if n < 0 || !f(number, v, x) {
			return false
		}
		raw = raw[n:]
	}
	return true
}

// unpacker decodes messages. Its methods report false for what is not as the shape
// says.
type unpacker struct {
	fields []field // of the messages that are not yet complete
	depth  int
	known  [512]any // strings seen before: most values repeat from object to object
}

// leanDepth is how deep the metadata of an object is.
const leanDepth = 2

func (p *unpacker) message(raw []byte, s *Shape) (map[string]any, bool) {
	base := len(p.fields)
	if p.depth++; p.depth > maxDepth || !p.collect(raw, s, base) {
		return nil, false
	}
	p.depth--
	m := make(map[string]any, len(p.fields)-base)
	for _, f := range p.fields[base:] {
		m[f.name] = f.value
	}
	clear(p.fields[base:])
	p.fields = p.fields[:base]
	return m, true
}

// collect puts the fields of a message on the stack, from base on.
func (p *unpacker) collect(raw []byte, s *Shape, base int) bool {
	ok := each(raw, func(n protowire.Number, v []byte, x uint64) bool {
		if int(n) >= len(s.byNumber) || s.byNumber[n] == nil {
			return false
		}
		f := s.byNumber[n]
		switch {
		case f.inline:
			return p.collect(v, f.shape, base)
		case f.values != nil:
			return p.entry(f, v, base)
		case f.name == "managedFields" && p.depth == leanDepth:
			return true
		}
		value, ok := p.value(f, v, x)
		switch {
		case !ok:
			return false
		case f.list:
			l, _ := p.slot(f.name, base).([]any)
			p.put(f.name, base, append(l, value))
		case value != nil || f.always:
			p.fields = append(p.fields, field{f.name, value})
		}
		return true
	})
	for _, f := range s.bare {
		if ok && p.slot(f.name, base) == nil {
			p.put(f.name, base, nil)
		}
	}
	return ok
}

// slot is what the stack holds under a name; the newest first, since what belongs
// to one list follows on itself.
func (p *unpacker) slot(name string, base int) any {
	for i := len(p.fields) - 1; i >= base; i-- {
		if p.fields[i].name == name {
			return p.fields[i].value
		}
	}
	return nil
}

func (p *unpacker) put(name string, base int, v any) {
	for i := len(p.fields) - 1; i >= base; i-- {
		if p.fields[i].name == name {
			p.fields[i].value = v
			return
		}
	}
	p.fields = append(p.fields, field{name, v})
}

// entry adds one entry of a map.
func (p *unpacker) entry(f *part, raw []byte, base int) bool {
	var key string
	var value any = ""
	ok := each(raw, func(n protowire.Number, v []byte, x uint64) (ok bool) {
		switch n {
		case 1:
			key, ok = p.text(v).(string)
		case 2:
			value, ok = p.value(f.values, v, x)
		}
		return ok
	})
	m, _ := p.slot(f.name, base).(map[string]any)
	if m == nil {
		m = map[string]any{}
		p.put(f.name, base, m)
	}
	m[key] = value
	return ok
}

// value decodes one value; nil for one that JSON leaves out because it is empty, and
// for a time that is none.
func (p *unpacker) value(f *part, v []byte, x uint64) (any, bool) {
	switch f.form {
	case aString:
		if len(v) == 0 && !f.always {
			return nil, true
		}
		return p.text(v), true
	case aBool:
		if x == 0 && !f.always {
			return nil, true
		}
		return x != 0, true
	case aNumber:
		if v != nil || x == 0 && !f.always {
			return nil, v == nil // several numbers in one: no server writes them so
		}
		return int64(x), true // #nosec G115 -- that is how negative numbers are written
	case aBytes:
		if len(v) == 0 && !f.always {
			return nil, true
		}
		return base64.StdEncoding.EncodeToString(v), true
	case aMessage:
		m, ok := p.message(v, f.shape)
		if ok && len(m) == 0 && !f.always {
			return nil, true
		}
		return m, ok
	case aTime:
		return moment(v)
	case aQuantity:
		return p.quantity(v)
	case aNumberOrString:
		return p.numberOrString(v)
	default:
		return nil, false
	}
}

// text is a string, of which there is one copy if it comes again soon.
func (p *unpacker) text(v []byte) any {
	if len(v) == 0 {
		return ""
	}
	if len(v) > 64 {
		return string(v)
	}
	h := uint32(2166136261)
	for _, c := range v {
		h = (h ^ uint32(c)) * 16777619
	}
	at := &p.known[h%uint32(len(p.known))]
	if s, ok := (*at).(string); ok && s == string(v) {
		return *at
	}
	*at = string(v)
	return *at
}

// moment is a metav1.Time, to the second as JSON has it.
func moment(raw []byte) (any, bool) {
	if len(raw) == 0 {
		return nil, true
	}
	var seconds int64
	ok := each(raw, func(n protowire.Number, _ []byte, x uint64) bool {
		if n == 1 {
			seconds = int64(x) // #nosec G115 -- that is how times before 1970 are written
		}
		return n <= 2
	})
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339), ok
}

// quantity is a resource.Quantity: protobuf has it in the words of JSON.
func (p *unpacker) quantity(raw []byte) (v any, ok bool) {
	v = "0"
	return v, each(raw, func(n protowire.Number, text []byte, _ uint64) bool {
		v = p.text(text)
		return n == 1
	})
}

// numberOrString is an intstr.IntOrString.
func (p *unpacker) numberOrString(raw []byte) (any, bool) {
	var kind, number uint64
	var text []byte
	ok := each(raw, func(n protowire.Number, v []byte, x uint64) bool {
		switch n {
		case 1:
			kind = x
		case 2:
			number = x
		case 3:
			text = v
		}
		return n <= 3
	})
	if kind == 0 {
		return int64(int32(number)), ok // #nosec G115 -- it is written with its sign extended
	}
	return p.text(text), ok
}

// ErrShape is the error of a list that is not as a shape says: its server is newer,
// and has to be asked for JSON.
var ErrShape = errors.New("not as its shape says")

// maxObject bounds one object in protobuf; the API server stores none above 3 MiB.
const maxObject = 64 << 20

// Stream decodes a list in protobuf as it comes and calls f for every object, as
// Objects gives them. It ends at the first error of f. An answer that breaks off is
// io.ErrUnexpectedEOF.
func (s *Shape) Stream(r *bufio.Reader, f func(map[string]any) error) error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(r, head); err != nil {
		return brokenOff(err)
	}
	if !IsProtobuf(head) {
		return ErrShape
	}
	u, buf := unpacker{}, []byte(nil)
	left := int64(-1) // of the list; less than none before it begins
	for left != 0 {
		number, size, n, err := header(r)
		if err != nil {
			return err
		}
		if left < 0 && number == unknownRaw {
			left = size
			continue
		}
		if left > 0 {
			if left -= n + size; left < 0 || number > listItems {
				return ErrShape
			}
		}
		if size > maxObject {
			return ErrShape
		}
		buf = slices.Grow(buf[:0], int(size))[:size]
		if _, err := io.ReadFull(r, buf); err != nil {
			return brokenOff(err)
		}
		if left < 0 || number != listItems {
			continue
		}
		m, ok := u.message(buf, s)
		if !ok {
			return ErrShape
		}
		if err := f(m); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, r) // how it was written: it can be read, as it was
	return brokenOff(err)
}

// header reads the head of a field of bytes, itself n bytes long.
func header(r *bufio.Reader) (number protowire.Number, size, n int64, err error) {
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, 0, brokenOff(err)
	}
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, 0, 0, brokenOff(err)
	}
	number, wire := protowire.DecodeTag(tag)
	if wire != protowire.BytesType || number < 1 || length > 1<<50 {
		return 0, 0, 0, ErrShape
	}
	return number, int64(length), int64(protowire.SizeVarint(tag) + protowire.SizeVarint(length)), nil // #nosec G115 -- bounded just above
}

func brokenOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
