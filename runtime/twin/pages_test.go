package twin

import (
	"fmt"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

func TestContinues(t *testing.T) {
	for _, tt := range []struct {
		name, list, next string
		early            bool
	}{
		{"first", `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"abc"},"items":[]}`, "abc", true},
		{"last page", `{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[]}`, "", true},
		{"after the items", `{"apiVersion":"a/v1","items":[{}],"metadata":{"continue":"abc"}}`, "", false},
		{"without items", `{"apiVersion":"a/v1","other":[{"metadata":{"continue":"no"}}],"metadata":{"continue":"abc"}}`, "abc", true},
		{"no metadata", `{"kind":"PodList"}`, "", false},
		{"no object", `[]`, "", false},
		{"cut short", `{"kind":"PodList","metadata":{"continue":"ab`, "", false},
		{"of another kind", `{"metadata":7}`, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if next, early := continues([]byte(tt.list)); next != tt.next || early != tt.early {
				t.Errorf("got %q, %v; want %q, %v", next, early, tt.next, tt.early)
			}
		})
	}
}

// All pages come, in order, whether the server says before or after the items
// that there are more.
func TestAllPagesAreRead(t *testing.T) {
	s := liveWorld(t)
	var text strings.Builder
	for i := range pageSize*2 + 3 {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%04d, namespace: bank}\n", i)
	}
	objs, err := sim.ReadObjects(strings.NewReader(text.String()), "many")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(objs); err != nil {
		t.Fatal(err)
	}
	s.ClearRequests()
	tw, c := twinOf(t, s)
	var names []string
	list(t, c, "configmaps", cluster.ListOptions{Namespace: "bank"}, &names)
	if len(names) != pageSize*2+3 || names[0] != "c0000" || names[len(names)-1] != fmt.Sprintf("c%04d", pageSize*2+2) {
		t.Errorf("%d of %d came", len(names), pageSize*2+3)
	}
	before := tw.Counts()
	list(t, c, "configmaps", cluster.ListOptions{Namespace: "bank"}, &names)
	if n := tw.Counts(); n != before {
		t.Errorf("asked again: %+v, then %+v", before, n)
	}
	harmless(t, s)
}

// list adds the names of what a lean list gives to out.
func list(t *testing.T, c *cluster.Client, kind string, o cluster.ListOptions, out *[]string) {
	t.Helper()
	res, err := c.Resolve(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	o.Lean = true
	err = c.List(t.Context(), res, o, func(o *cluster.Object) error {
		if o.GetName() != "kube-root-ca.crt" { // which is in every namespace
			*out = append(*out, o.GetName())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A list by labels brings what it matches and nothing else, and what the twin
// changed since stays changed when the rest is read.
func TestListsByLabels(t *testing.T) {
	s := liveWorld(t)
	other, err := sim.ReadObjects(strings.NewReader("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: marked, namespace: bank, labels: {app: web}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain, namespace: bank}\n"), "maps")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(other); err != nil {
		t.Fatal(err)
	}
	tw, c := twinOf(t, s)
	began := tw.Counts()
	look := func(want string, o cluster.ListOptions) {
		t.Helper()
		var names []string
		list(t, c, "configmaps", o, &names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("labels %q: got %q, want %q", o.Labels, got, want)
		}
	}
	byLabel := cluster.ListOptions{Labels: "app=web"}
	look("marked", byLabel)
	look("marked", byLabel)
	if n := tw.Counts(); n.Lists-began.Lists != 1 || n.Objects-began.Objects != 1 {
		t.Errorf("%d lists brought %d objects, want one of one", n.Lists-began.Lists, n.Objects-began.Objects)
	}
	if err := c.Delete(t.Context(), cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "bank", Name: "marked"}, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	look("", byLabel)
	look("plain conf", cluster.ListOptions{}) // by namespace: bank, shop
	look("", byLabel)
	harmless(t, s)
}

// Who asks by ever new labels gets the whole kind, once.
func TestManyListsByLabels(t *testing.T) {
	s := liveWorld(t)
	tw, c := twinOf(t, s)
	began := tw.Counts()
	for i := range wideAfterFew {
		var names []string
		list(t, c, "configmaps", cluster.ListOptions{Labels: fmt.Sprintf("app=a%d", i)}, &names)
		if len(names) != 0 {
			t.Errorf("app=a%d: %v", i, names)
		}
	}
	if n := tw.Counts().Lists - began.Lists; n >= wideAfterFew {
		t.Errorf("%d lists for as many labels", n)
	}
}

// wideAfterFew is more lists than the simulation makes of parts of a kind.
const wideAfterFew = 20
