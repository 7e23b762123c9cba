package failures

import (
	"testing"

	"rutter.dev/rutter/tests/workbench"
)

// A mesh that is unusual, and well, is upgraded to the end, and nobody is asked
// for leave.
func TestHealthy(t *testing.T) {
	for _, s := range scenes(t, "healthy") {
		t.Run(s.file, func(t *testing.T) {
			t.Parallel()
			w := s.arrange(t)
			before := workbench.State(t, w.sim)
			if err := w.run(); err != nil {
				t.Fatalf("blocked: %v", err)
			}
			for _, f := range w.found() {
				t.Errorf("%s %s: %s: %s", f.Code, f.Verdict, f.Ref, f.Problem)
			}
			if len(w.writes()) == 0 {
				t.Error("nothing was upgraded")
			}
			after := w.state()
			for _, name := range s.Kept {
				if before[name] == "" || after[name] != before[name] {
					t.Errorf("%s: was %q, is %q", name, before[name], after[name])
				}
			}
		})
	}
}
