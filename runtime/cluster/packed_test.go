package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// inProtobuf answers in protobuf, as an API server does.
func inProtobuf(t *testing.T, w http.ResponseWriter, code int, kind string, o runtime.Object) {
	t.Helper()
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
	w.Header().Set("Content-Type", protobufType)
	w.WriteHeader(code)
	if err := protobuf.NewSerializer(nil, nil).Encode(o, w); err != nil {
		t.Error(err)
	}
}

func somePods(cont string, names ...string) *corev1.PodList {
	l := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: cont}}
	for _, name := range names {
		l.Items = append(l.Items, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
			Spec:       corev1.PodSpec{NodeName: "n1"},
		})
	}
	return l
}

// A lean list is asked for in protobuf, and its next page before this one is looked at.
func TestLeanListIsInProtobuf(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	second := make(chan struct{})
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		from := r.URL.Query().Get("continue")
		mu.Lock()
		asked = append(asked, from)
		mu.Unlock()
		if !strings.HasPrefix(r.Header.Get("Accept"), protobufType+",") {
			t.Errorf("asked for %q", r.Header.Get("Accept"))
		}
		switch from {
		case "":
			inProtobuf(t, w, 200, "PodList", somePods("second", "p1", "p2"))
		case "second":
			close(second)
			inProtobuf(t, w, 200, "PodList", somePods("old", "p3"))
		case "old":
			gone := metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired, ListMeta: metav1.ListMeta{Continue: "fresh"}}
			inProtobuf(t, w, 410, "Status", &gone)
		case "fresh":
			inProtobuf(t, w, 200, "PodList", somePods("", "p3", "p4"))
		}
	})
	c := client(t, srv.URL, ClientOptions{})
	res, err := c.Resolve(t.Context(), "po")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = c.List(t.Context(), res, ListOptions{PageSize: 2, Lean: true}, func(o *Object) error {
		if len(got) == 0 {
			<-second
		}
		if o.GetKind() != "Pod" || o.GetAPIVersion() != "v1" || o.GetManagedFields() != nil {
			t.Errorf("got %v", o.Object)
		}
		got = append(got, o.GetName())
		return nil
	})
	if err != nil || strings.Join(got, ",") != "p1,p2,p3,p4" || !slices.Equal(asked, []string{"", "second", "old", "fresh"}) {
		t.Errorf("got %v, %v, asked %v", got, err, asked)
	}
}

// What a list is worth does not hang on how it was written.
func TestLeanListOfAnyServer(t *testing.T) {
	pods := somePods("", "p1", "p2")
	asJSON := `{"apiVersion":"v1","kind":"PodList","metadata":{"resourceVersion":"7"},"items":[` +
		`{"metadata":{"name":"p1","namespace":"shop","managedFields":[{"manager":"m"}]},"spec":{"nodeName":"n1","containers":null},"status":{}},` +
		`{"metadata":{"name":"p2","namespace":"shop"},"spec":{"nodeName":"n1","containers":null},"status":{}}]}`
	var newer bytes.Buffer
	pods.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "PodList"})
	if err := protobuf.NewSerializer(nil, nil).Encode(pods, &newer); err != nil {
		t.Fatal(err)
	}
	// nodeName is field 10 of a PodSpec, which becomes 99.
	unknown := bytes.ReplaceAll(newer.Bytes(), []byte("\x52\x02n1"), []byte("\x9a\x06\x01n"))
	var want []map[string]any
	for name, body := range map[string]string{"0 JSON": asJSON, "1 protobuf": newer.String(), "2 newer": string(unknown)} {
		srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.Header.Get("Accept"), protobufType) {
				fmt.Fprint(w, asJSON)
				return
			}
			fmt.Fprint(w, body)
		})
		c := client(t, srv.URL, ClientOptions{})
		res, err := c.Resolve(t.Context(), "po")
		if err != nil {
			t.Fatal(err)
		}
		var got []map[string]any
		if err := c.List(t.Context(), res, ListOptions{Lean: true}, func(o *Object) error {
			got = append(got, o.Object)
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want == nil {
			want = got
		}
		if len(got) != 2 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, not %v", name, got, want)
		}
	}
}

// Who has seen enough leaves no request behind.
func TestLeanListThatIsLeft(t *testing.T) {
	enough := errors.New("enough")
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("continue") == "" {
			inProtobuf(t, w, 200, "PodList", somePods("second", "p1"))
			return
		}
		<-r.Context().Done()
	})
	c := client(t, srv.URL, ClientOptions{})
	res, err := c.Resolve(t.Context(), "po")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.List(t.Context(), res, ListOptions{Lean: true}, func(*Object) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

// A large list is taken whole from a server that gives it from its memory; what goes
// wrong with that is made good in pages, and nothing is given twice.
func TestLargeListIsTakenWhole(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		cut     bool
		want    []string // the limits that are asked for
	}{
		"new":        {`{"major":"1","minor":"34","gitVersion":"v1.34.0"}`, false, []string{"500", "", ""}},
		"old":        {`{"major":"1","minor":"33","gitVersion":"v1.33.0"}`, false, []string{"500", "500", "500", "500"}},
		"broken off": {`{"major":"1","minor":"34","gitVersion":"v1.34.0"}`, true, []string{"500", "", "500", "500", "", "500", "500"}},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var asked []string
			srv := fakeServerOf(t, c.version, func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				mu.Lock()
				asked = append(asked, q.Get("limit"))
				mu.Unlock()
				switch {
				case q.Get("limit") == "" && c.cut:
					w.Header().Set("Content-Length", "100000")
					inProtobuf(t, w, 200, "PodList", somePods("", "p1", "p2"))
				case q.Get("limit") == "":
					inProtobuf(t, w, 200, "PodList", somePods("", "p1", "p2", "p3"))
				case q.Get("continue") == "":
					inProtobuf(t, w, 200, "PodList", somePods("more", "p1", "p2"))
				default:
					inProtobuf(t, w, 200, "PodList", somePods("", "p3"))
				}
			})
			k := client(t, srv.URL, ClientOptions{})
			res, err := k.Resolve(t.Context(), "po")
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				var got []string
				err := k.List(t.Context(), res, ListOptions{Lean: true}, func(o *Object) error {
					got = append(got, o.GetName())
					return nil
				})
				if err != nil || strings.Join(got, ",") != "p1,p2,p3" {
					t.Errorf("got %v, %v", got, err)
				}
			}
			if !slices.Equal(asked, c.want) {
				t.Errorf("asked for %q, want %q", asked, c.want)
			}
		})
	}
}

// The first error of who looks ends the list, as it comes.
func TestWholeListThatIsLeft(t *testing.T) {
	enough := errors.New("enough")
	srv := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		inProtobuf(t, w, 200, "PodList", somePods("", "p1", "p2"))
	})
	c := client(t, srv.URL, ClientOptions{})
	c.largest.Store(givesWhole)
	res, err := c.Resolve(t.Context(), "po")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := c.List(t.Context(), res, ListOptions{Lean: true}, func(*Object) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Errorf("%d given, %v", n, err)
	}
}
