package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module writes a module of one file, and returns its folder.
func module(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.com/m\n\ngo 1.26\n", "m.go": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRun(t *testing.T) {
	const mkdir = "package m\n\nimport \"os\"\n\n// A makes a folder.\nfunc A() error { return os.Mkdir(\"a\", 0o777) }"
	const wide = "package m\n\n// A narrows.\nfunc A(n int64) int32 { return int32(n) }"
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"clean":                 {"package m\n", nil},
		"a rule":                {mkdir + "\n", []string{"m.go:6:25: G301: Expect directory permissions to be 0750 or less"}},
		"an analyzer":           {wide + "\n", []string{"m.go:4:37: G115: integer overflow conversion int64 -> int32"}},
		"a reason":              {mkdir + " // #nosec G301 -- everybody's\n", nil},
		"a reason for another":  {mkdir + " // #nosec G302 -- everybody's\n", []string{"m.go:6:25: G301: Expect directory permissions to be 0750 or less"}},
		"no reason":             {mkdir + " // #nosec G301\n", []string{"m.go:6:25: G301: #nosec without a reason, want #nosec G301 -- why"}},
		"an analyzer, a reason": {wide + " // #nosec G115 -- it is small\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := run(module(t, c.text), []string{"./..."})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// What can't be looked into is no clean package.
func TestRunFails(t *testing.T) {
	for name, text := range map[string]string{
		"does not compile": "package m\n\nvar a int = \"\"\n",
		"does not parse":   "package m\n\nfunc\n",
		"imports nothing":  "package m\n\nimport _ \"example.com/m/none\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := run(module(t, text), []string{"./..."}); err == nil {
				t.Errorf("no error, found %q", got)
			}
		})
	}
	if err := failures(strings.NewReader("Checking package: m\nPanic when running SSA analyzer on package: m.\nError running analyzer G115: x\n")); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v, want two errors", err)
	}
}
