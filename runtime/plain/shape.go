package plain

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Shape is how the objects of a kind look in protobuf, as their Go type tells it,
// and by which names the same is called in JSON. It does not change; safe for
// concurrent use.
type Shape struct {
	byNumber []*part // nil where the type has no such field
	bare     []*part // that are null in JSON where protobuf has nothing
}

// part is one field of a message.
type part struct {
	name   string
	form   form
	shape  *Shape // of a message
	list   bool
	values *part // of a map, whose keys are strings
	inline bool  // its fields are its owner's
	always bool  // JSON has it when it is zero, too
}

// form is what a value is.
type form int

const (
	aMessage form = iota
	aString
	aBool
	aNumber
	aBytes
	aTime
	aQuantity
	aNumberOrString
	notPlain // not decoded here: see Shape.List
)

var formsOf = map[reflect.Type]form{
	reflect.TypeFor[metav1.Time]():        aTime,
	reflect.TypeFor[resource.Quantity]():  aQuantity,
	reflect.TypeFor[intstr.IntOrString](): aNumberOrString,
}

// ShapeOf is the shape of a type of k8s.io/api. A type that holds what is not known
// here is refused.
func ShapeOf(t reflect.Type) (*Shape, error) {
	return shapes{}.of(t)
}

// shapes are those of the types that were met, which may hold themselves.
type shapes map[reflect.Type]*Shape

func (known shapes) of(t reflect.Type) (*Shape, error) {
	if s := known[t]; s != nil {
		return s, nil
	}
	s := &Shape{}
	known[t] = s
	for i := range t.NumField() {
		f := t.Field(i)
		number, ok := numberOf(f)
		if !ok {
			continue // TypeMeta, which is beside the message
		}
		p, err := known.part(f)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		for len(s.byNumber) <= number {
			s.byNumber = append(s.byNumber, nil)
		}
		s.byNumber[number] = p
		switch f.Type.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			if !omits(f, "omitempty") {
				s.bare = append(s.bare, p)
			}
		}
	}
	return s, nil
}

// numberOf reads the tag by which the API's types are generated:
// protobuf:"bytes,1,opt,name=metadata".
func numberOf(f reflect.StructField) (int, bool) {
	tag := strings.Split(f.Tag.Get("protobuf"), ",")
	if len(tag) < 2 {
		return 0, false
	}
	n, err := strconv.Atoi(tag[1])
	return n, err == nil
}

func omits(f reflect.StructField, when string) bool {
	return slices.Contains(strings.Split(f.Tag.Get("json"), ",")[1:], when)
}

func (known shapes) part(f reflect.StructField) (*part, error) {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	p := &part{name: name, inline: omits(f, "inline"), always: !omits(f, "omitempty")}
	if name == "" && !p.inline || name == "-" {
		return nil, errors.New("has no name in JSON")
	}
	t := f.Type
	switch {
	case t.Kind() == reflect.Pointer:
		p.always, t = true, t.Elem()
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		p.list, p.always, t = true, true, t.Elem()
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		p.values = &part{always: true}
		return p, known.value(p.values, t.Elem())
	case t.Kind() == reflect.Struct:
		p.always = !omits(f, "omitzero") // omitempty leaves out no struct
	}
	return p, known.value(p, t)
}

// value finds out what a part's values are.
func (known shapes) value(p *part, t reflect.Type) (err error) {
	if special, ok := formsOf[t]; ok {
		p.form = special
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		p.form = aString
	case reflect.Bool:
		p.form = aBool
	case reflect.Int32, reflect.Int64:
		p.form = aNumber
	case reflect.Slice:
		if t.Elem().Kind() != reflect.Uint8 {
			return fmt.Errorf("%s is not known in protobuf", t)
		}
		p.form = aBytes
	case reflect.Struct:
		if t == reflect.TypeFor[metav1.FieldsV1]() {
			p.form = notPlain
			return nil
		}
		p.form = aMessage
		p.shape, err = known.of(t)
	default:
		return fmt.Errorf("%s is not known in protobuf", t)
	}
	return err
}
