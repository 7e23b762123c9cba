package sim_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
)

func TestOneProcessAtATimeHasTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.log")
	c, err := sim.Open(path, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = sim.Open(path, sim.Options{})
	if !errors.Is(err, sim.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, expected ErrInUse with pid and path", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err = sim.Open(path, sim.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("not a log\nat all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a log that cannot be opened does not stay locked
		if _, err := sim.Open(path, sim.Options{}); !errors.Is(err, sim.ErrDamaged) {
			t.Errorf("%v, expected ErrDamaged", err)
		}
	}
}

// What TestKilledWriterLosesNothing tells its child process: the log to write
// to, and what to put in the names of this round's objects.
const (
	writerLog   = "SIM_TEST_WRITER_LOG"
	writerRound = "SIM_TEST_WRITER_ROUND"
)

// acknowledged is one line of the child: what the server answered.
type acknowledged struct {
	Deleted string         `json:",omitempty"`
	Object  map[string]any `json:",omitempty"`
}

// TestWriteUntilKilled is not a test but the child process of the next one.
func TestWriteUntilKilled(t *testing.T) {
	path := os.Getenv(writerLog)
	if path == "" {
		t.Skip("runs only as the child process of TestKilledWriterLosesNothing")
	}
	c, err := sim.Open(path, sim.Options{Controllers: controllers.All()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dynamic.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	cm := d.Resource(configMaps).Namespace("default")
	out := json.NewEncoder(os.Stdout)
	tell := func(a acknowledged) {
		if err := out.Encode(a); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; ; i++ {
		o := configMap(fmt.Sprintf("c-%s-%d", os.Getenv(writerRound), i), object{"k": strings.Repeat("x", 4000)})
		o.SetNamespace("default")
		tell(acknowledged{Object: must(t)(cm.Create(t.Context(), o, metav1.CreateOptions{})).Object})
		if i%2 == 1 {
			tell(acknowledged{Object: must(t)(cm.Patch(t.Context(), o.GetName(), types.MergePatchType, []byte(`{"data":{"k":"y"}}`), metav1.PatchOptions{})).Object})
		}
		if i%3 == 2 {
			if err := cm.Delete(t.Context(), o.GetName(), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			tell(acknowledged{Deleted: o.GetName()})
		}
		c.Advance(1e9)
	}
}

// TestKilledWriterLosesNothing kills a process in the middle of its writes,
// several times over, and holds the reopened log against what the process had
// been answered.
func TestKilledWriterLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.log")
	want := map[string]map[string]any{} // nil for deleted
	for _, after := range []int{1, 37, 200} {
		pid := writeAndKill(t, path, after, want)
		c, err := sim.Open(path, sim.Options{Controllers: controllers.All()})
		if err != nil {
			t.Fatalf("after the kill of process %d: %v", pid, err)
		}
		d := dynamic.NewForConfigOrDie(c.Config())
		for name, o := range want {
			got, err := d.Resource(configMaps).Namespace("default").Get(t.Context(), name, metav1.GetOptions{})
			switch {
			case o == nil && !apierrors.IsNotFound(err):
				t.Errorf("%s was deleted, and is back: %v", name, err)
			case o != nil && err != nil:
				t.Errorf("%s is lost: %v", name, err)
			case o != nil && !reflect.DeepEqual(got, &unstructured.Unstructured{Object: o}):
				t.Errorf("%s differs:\n%v\n%v", name, got.Object, o)
			}
		}
		before := c.Objects()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if c, err = sim.Open(path, sim.Options{Controllers: controllers.All()}); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c.Objects(), before) {
			t.Error("the cluster differs when it is opened once more")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writeAndKill runs a writer until it was answered n times, kills it with
// SIGKILL, and enters every answer that it told of. What it had asked for when
// it died, and was not told of, may have happened or not.
func writeAndKill(t *testing.T, path string, n int, want map[string]map[string]any) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWriteUntilKilled$") //nolint:gosec // this very program
	cmd.Env = append(os.Environ(), writerLog+"="+path, fmt.Sprint(writerRound, "=", n))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var last string
	told := 0
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break // the rest of a line that the kill cut off counts for nothing
		}
		var a acknowledged
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("child: %s", line)
		}
		if a.Deleted != "" {
			want[a.Deleted], last = nil, a.Deleted
		} else {
			raw, err := json.Marshal(a.Object)
			if err != nil {
				t.Fatal(err)
			}
			if err := u.UnmarshalJSON(raw); err != nil {
				t.Fatal(err)
			}
			want[u.GetName()], last = u.Object, u.GetName()
		}
		if told++; told == n {
			if _, err := sim.Open(path, sim.Options{}); !errors.Is(err, sim.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", cmd.Process.Pid)) {
				t.Errorf("%v, expected ErrInUse with the writer's pid", err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if told < n {
		t.Fatalf("the writer told of %d answers and ended", told)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Success() {
		t.Error("the writer was not killed")
	}
	// The last object told of may have been changed by a write under way.
	delete(want, last)
	return cmd.Process.Pid
}
