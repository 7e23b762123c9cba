package plain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// filler fills values as a server could have them: nothing is an empty list, which
// protobuf can't tell from none.
type filler struct{ *rand.Rand }

func (f filler) fill(v reflect.Value, depth int) {
	switch x := v.Addr().Interface().(type) {
	case *metav1.Time:
		*x = metav1.Unix(f.Int64N(4e9)-1e9, 0)
		return
	case *resource.Quantity:
		*x = *resource.NewMilliQuantity(f.Int64N(1e6), resource.DecimalSI)
		return
	case *intstr.IntOrString:
		if *x = intstr.FromInt32(f.Int32() - 1<<30); f.IntN(2) == 0 {
			*x = intstr.FromString("http")
		}
		return
	case *metav1.FieldsV1:
		x.SetRawString(`{"f:x":{}}`)
		return
	case *[]byte:
		*x = []byte{1, 2}
		return
	case *[]metav1.ManagedFieldsEntry:
		if depth > 2 {
			return // no server keeps any in a template
		}
	}
	if depth > 12 || f.IntN(4) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"a", "web", "π \"quoted\"\n", string(bytes.Repeat([]byte("long "), 40))}[f.IntN(4)])
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int32:
		v.SetInt(int64(f.Int32() - 1<<30))
	case reflect.Int64:
		v.SetInt(f.Int64() - 1<<62)
	case reflect.Uint8:
		v.SetUint(f.Uint64N(256))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Slice:
		for range 1 + f.IntN(2) {
			e := reflect.New(v.Type().Elem()).Elem()
			f.fill(e, depth+1)
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + f.IntN(2) {
			key, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.SetString([]string{"app", "istio.io/rev", ""}[f.IntN(3)])
			f.fill(e, depth+1)
			v.SetMapIndex(key, e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Type != reflect.TypeFor[metav1.TypeMeta]() {
				f.fill(v.Field(i), depth+1)
			}
		}
	}
}

// packed is a list in protobuf, as the API server writes it.
func packed(t testing.TB, list runtime.Object, kind string) []byte {
	t.Helper()
	list.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
	var b bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(list, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is decoded of protobuf is what the same list says in JSON.
func TestProtobufIsAsJSON(t *testing.T) {
	for name, list := range map[string]runtime.Object{
		"Pod": &corev1.PodList{}, "Service": &corev1.ServiceList{}, "ConfigMap": &corev1.ConfigMapList{},
		"Namespace": &corev1.NamespaceList{}, "Deployment": &appsv1.DeploymentList{},
		"StatefulSet": &appsv1.StatefulSetList{}, "DaemonSet": &appsv1.DaemonSetList{}, "PartialObjectMetadata": &metav1.PartialObjectMetadataList{},
	} {
		t.Run(name, func(t *testing.T) {
			items := reflect.ValueOf(list).Elem().FieldByName("Items")
			s, err := ShapeOf(items.Type().Elem())
			if err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(300) {
				l := reflect.New(reflect.TypeOf(list).Elem())
				of := reflect.MakeSlice(items.Type(), int(seed%3), int(seed%3))
				for i := range of.Len() {
					filler{rand.New(rand.NewPCG(seed, uint64(i)))}.fill(of.Index(i), 0)
				}
				l.Elem().FieldByName("Items").Set(of)
				full := l.Interface().(runtime.Object)
				full.(metav1.ListInterface).SetContinue("more")
				full.(metav1.ListInterface).SetResourceVersion("12")
				sameAsJSON(t, s, full, name)
			}
		})
	}
}

func sameAsJSON(t *testing.T, s *Shape, list runtime.Object, kind string) {
	t.Helper()
	raw, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	want, err := DecodeLean(raw)
	if err != nil {
		t.Fatal(err)
	}
	l, ok := Unpack(packed(t, list, kind+"List"))
	if !ok || l.Continue != "more" || l.ResourceVersion != "12" {
		t.Fatalf("unpacked %t: %q %q", ok, l.Continue, l.ResourceVersion)
	}
	got, ok := s.Objects(l)
	if !ok {
		t.Fatalf("not decoded: %s", raw)
	}
	var streamed []map[string]any
	raw = packed(t, list, kind+"List")
	keep := func(m map[string]any) error {
		streamed = append(streamed, m)
		return nil
	}
	if err := s.Stream(bufio.NewReader(bytes.NewReader(raw)), keep); err != nil || !reflect.DeepEqual(got, streamed) {
		t.Fatalf("streamed: %v, %v, not %v", streamed, err, got)
	}
	if err := s.Stream(bufio.NewReader(bytes.NewReader(raw[:len(raw)-len(raw)/3])), keep); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("cut off: %v", err)
	}
	wanted, _ := want["items"].([]any)
	if len(got) != len(wanted) {
		t.Fatalf("%d objects, not %d", len(got), len(wanted))
	}
	for i, w := range wanted {
		if !reflect.DeepEqual(any(got[i]), w) {
			a, _ := json.Marshal(got[i])
			b, _ := json.Marshal(w)
			t.Fatalf("protobuf:\n%s\nJSON:\n%s", a, b)
		}
	}
}

// A field that is not known here is of a newer server; the list is asked for again.
func TestProtobufOfANewerServer(t *testing.T) {
	s, err := ShapeOf(reflect.TypeFor[metav1.PartialObjectMetadata]())
	if err != nil {
		t.Fatal(err)
	}
	l, ok := Unpack(packed(t, &corev1.PodList{Items: []corev1.Pod{{Spec: corev1.PodSpec{NodeName: "a"}}}}, "PodList"))
	if !ok {
		t.Fatal("a list of pods is no list")
	}
	if got, ok := s.Objects(l); ok {
		t.Errorf("pods are decoded as metadata alone: %v", got)
	}
}

func FuzzProtobuf(f *testing.F) {
	s, err := ShapeOf(reflect.TypeFor[corev1.Pod]())
	if err != nil {
		f.Fatal(err)
	}
	pods := &corev1.PodList{Items: make([]corev1.Pod, 2)}
	for i := range pods.Items {
		filler{rand.New(rand.NewPCG(1, uint64(i)))}.fill(reflect.ValueOf(&pods.Items[i]).Elem(), 0)
	}
	f.Add(packed(f, pods, "PodList"))
	f.Add([]byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := 0
		streamed := s.Stream(bufio.NewReader(bytes.NewReader(raw)), func(map[string]any) error {
			n++
			return nil
		})
		l, ok := Unpack(raw)
		if !ok {
			return
		}
		objs, ok := s.Objects(l)
		if !ok {
			return
		}
		if streamed == nil && n != len(objs) {
			t.Errorf("%d objects, %d as a stream", len(objs), n)
		}
		if _, err := json.Marshal(objs); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkProtobuf(b *testing.B) {
	s, err := ShapeOf(reflect.TypeFor[corev1.Pod]())
	if err != nil {
		b.Fatal(err)
	}
	pods := &corev1.PodList{Items: make([]corev1.Pod, 100)}
	for i := range pods.Items {
		filler{rand.New(rand.NewPCG(1, uint64(i)))}.fill(reflect.ValueOf(&pods.Items[i]).Elem(), 0)
	}
	raw := packed(b, pods, "PodList")
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		l, _ := Unpack(raw)
		if _, ok := s.Objects(l); !ok {
			b.Fatal("not decoded")
		}
	}
}
