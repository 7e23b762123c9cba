package twin

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim/controllers"
)

func snapshotOf(t *testing.T) (*Snapshot, []byte) {
	t.Helper()
	s := liveWorld(t)
	live, err := cluster.New(s.Config(), "live", s.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := Take(t.Context(), live, s.Clock().Now())
	if err != nil {
		t.Fatal(err)
	}
	harmless(t, s)
	var b bytes.Buffer
	if err := snap.Write(&b); err != nil {
		t.Fatal(err)
	}
	return snap, b.Bytes()
}

// A twin of a snapshot is as good as one of its cluster, but for what only a
// server can say.
func TestOffline(t *testing.T) {
	_, data := snapshotOf(t)
	snap, err := ReadSnapshot(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	tw, err := Offline(snap, Options{Controllers: controllers.All()})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tw.Client(tw.Clock(), cluster.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"web:2"}]}}}}`)
	if _, err := c.Patch(t.Context(), webRef, types.StrategicMergePatchType, patch, cluster.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := tw.Clock().Sleep(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(images(t, c), " "); got != "web:2 web:2 web:2" {
		t.Errorf("the twin's pods run %s", got)
	}
	if a := tw.Assumptions(); len(a) == 0 || !strings.Contains(a[0].String(), "snapshot") {
		t.Errorf("assumptions %v", a)
	}
}

func TestSnapshotHoldsNoSecrets(t *testing.T) {
	snap, data := snapshotOf(t)
	if bytes.Contains(data, []byte("hunter2")) || bytes.Contains(data, []byte("aHVudGVyMg")) {
		t.Error("the password is in the file")
	}
	found := false
	for _, o := range snap.Objects {
		if o.GetKind() != "Secret" {
			continue
		}
		m, _ := o.Object["data"].(map[string]any)
		v, has := m["password"]
		found = found || has && v == ""
	}
	if !found {
		t.Error("the Secret's key is gone, too")
	}
}

func TestBadSnapshots(t *testing.T) {
	_, data := snapshotOf(t)
	repack := func(old, now string) []byte {
		snap, err := ReadSnapshot(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := snap.Write(&b); err != nil {
			t.Fatal(err)
		}
		return gzipped(t, bytes.Replace(unzipped(t, b.Bytes()), []byte(old), []byte(now), 1))
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":    {nil, "is no snapshot"},
		"text":     {[]byte("kind: List\n"), "is no snapshot"},
		"cut off":  {data[:len(data)/2], "is cut off"},
		"newer":    {repack(`"version":1,`, `"version":9,`), "is a snapshot in format 9, made by a newer rutter"},
		"changed":  {repack(`"image":"web:1"`, `"image":"web:3"`), "was changed or cut off"},
		"other":    {repack(`rutter-snapshot`, `something-else`), "is no snapshot"},
		"one less": {gzipped(t, dropLast(unzipped(t, data))), "was changed or cut off"},
	} {
		if _, err := ReadSnapshot(bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", name, err, c.want)
		}
	}
}

func unzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// dropLast takes the last line away.
func dropLast(b []byte) []byte {
	b = bytes.TrimSuffix(b, []byte("\n"))
	return b[:bytes.LastIndexByte(b, '\n')+1]
}
