package rollback

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/engine"
)

// The plan to roll the whole upgrade back, as a person reads it. UPDATE_GOLDEN=1
// rewrites it; then look at the difference.
func TestThePlanAsItIsRead(t *testing.T) {
	w := upgraded(t)
	w.events = nil
	if err := w.rollback(engine.RollbackOptions{PlanOnly: true}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	v := view.NewPlain(&got, view.Options{})
	for _, e := range w.events {
		v.Emit(e)
	}
	path := filepath.Join("testdata", "plan.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
	}
}
