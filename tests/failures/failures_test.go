package failures

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/stdlib"
	"rutter.dev/rutter/tests/workbench"
)

// Each failure is stopped where its file says, and leaves nothing behind.
func TestFailures(t *testing.T) {
	for _, f := range scenes(t, "failures") {
		t.Run(f.file, func(t *testing.T) {
			t.Parallel()
			if f.At == "" {
				f.stopsBeforeTheFirstWrite(t, f.arrange(t))
				return
			}
			f.stopsAndGoesBack(t, f.arrange(t))
		})
		if f.By != gate.PrecheckPassed {
			continue
		}
		t.Run(f.file+" of a careless runbook", func(t *testing.T) {
			t.Parallel()
			w := f.arrange(t)
			w.std = careless(t)
			f.stopsBeforeTheFirstWrite(t, w)
		})
	}
}

// stopsBeforeTheFirstWrite: the run fails, and the API server has seen no write.
func (s scene) stopsBeforeTheFirstWrite(t *testing.T, w *world) {
	t.Helper()
	before := workbench.State(t, w.sim)
	err := w.run()
	if sent := w.writes(); len(sent) > 0 {
		t.Errorf("%d writes, first: %s", len(sent), sent[0])
	}
	if err == nil {
		t.Fatal("nothing stopped it")
	}
	s.explains(t, w, err)
	workbench.Same(t, w.state(), before)
}

// stopsAndGoesBack: the run stops where it should, and its rollback leaves the
// cluster as it was.
func (s scene) stopsAndGoesBack(t *testing.T, w *world) {
	t.Helper()
	before := workbench.State(t, w.sim)
	err := w.run()
	if err == nil {
		t.Fatal("nothing stopped it")
	}
	if got := w.failed(); got != s.At {
		t.Fatalf("stopped in step %q, want %q: %v", got, s.At, err)
	}
	if len(w.writes()) == 0 {
		t.Error("nothing was written before it stopped: the file says less than it could")
	}
	for _, o := range s.Untouched {
		resource, name, _ := strings.Cut(o.Ref, "/")
		resource, _, _ = strings.Cut(resource, ".")
		for _, sent := range w.writes() {
			if strings.HasSuffix(sent, " "+resource+" "+o.Namespace+"/"+name) {
				t.Errorf("%s was written to: %s", o.Ref, sent)
			}
		}
	}
	if n := w.restarted(); n > s.Restarts {
		t.Errorf("%d workloads were restarted before it stopped", n)
	}
	s.explains(t, w, err)
	w.on = nil
	if err := w.rollback(); err != nil {
		t.Fatalf("rollback: %v", err)
	}
	workbench.Same(t, w.state(), before, s.Excepted...)
}

// explains demands that the error says what is wrong, and that it was the gate
// that refused. What a precheck found, a careful runbook stops for by itself.
func (s scene) explains(t *testing.T, w *world, err error) {
	t.Helper()
	refused := slices.ContainsFunc(w.found(), func(x gate.Finding) bool { return x.Code == s.By })
	if !refused && s.By != "" && (s.By != gate.PrecheckPassed || w.std != nil) {
		t.Errorf("%s did not refuse; found %+v: %v", s.By, w.found(), err)
	}
	if len(s.Says) == 0 {
		t.Errorf("the file does not say what the error says: %v", err)
	}
	text := err.Error()
	for _, f := range w.found() {
		text += "\n" + f.Problem
	}
	for _, want := range s.Says {
		if !strings.Contains(text, want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// careless is rutter's library with a preflight that passes over whatever it
// finds: what stops a run then is the host.
func careless(t testing.TB) fs.FS {
	t.Helper()
	out := fstest.MapFS{}
	files, err := fs.Glob(stdlib.FS, "*.star")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := fs.ReadFile(stdlib.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &fstest.MapFile{Data: text}
	}
	out["preflight.star"].Data = []byte(strings.Replace(string(out["preflight.star"].Data), "def preflight(", "def careful_preflight(", 1) + `
def preflight(to, revision = "", **_):
    istioctl.precheck(version = to, revision = revision)
    return istioctl.version()
`)
	return out
}
