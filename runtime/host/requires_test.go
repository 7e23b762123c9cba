package host

import (
	"context"
	"testing"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
)

// TestRequires: a runbook is not loaded by a rutter that it is not for, neither at
// first nor out of a journal's bundle.
func TestRequires(t *testing.T) {
	set, err := builtin.NewSet(interp.Builtins()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ rutter, requires, want string }{
		{"1.2.0", "", ""},
		{"1.2.0", ">=1.2", ""},
		{"1.2.0-rc.1", ">=1.2", ""},
		{"dev", ">=9", ""},
		{"1.2.0", ">=2", "x.star: the runbook requires rutter >=2, and this is 1.2.0"},
		{"2.0.0", ">=1.2, <2", "x.star: the runbook requires rutter >=1.2, <2, and this is 2.0.0"},
	} {
		h := &Host{Builtins: set, Version: tc.rutter}
		b := &loader.Bundle{Entry: "//x.star", Files: map[string]string{"//x.star": "runbook(name = \"x\", version = \"1.0.0\", requires = \"" + tc.requires + "\")\n\ndef run(p):\n    pass\n"}}
		_, err := h.Load(context.Background(), loader.FromBundle(b, nil))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != tc.want || diag.ExitCode(err) != diag.Usage) {
			t.Errorf("%s wants %q: got %v, want %q", tc.rutter, tc.requires, err, tc.want)
		}
	}
}
