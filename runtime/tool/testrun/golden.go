package testrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/env"
)

var goldenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// golden compares text with a golden file, or writes it.
func (t *test) golden(_ *starlark.Thread, a *goldenArgs) (starlark.Value, error) {
	var text string
	switch v := a.Got.(type) {
	case *outcome:
		text = v.transcript
	case starlark.String:
		text = string(v)
	default:
		return nil, fmt.Errorf("t.golden: got %s, want the result of t.run or a string", v.Type())
	}
	if !goldenName.MatchString(a.Name) {
		return nil, fmt.Errorf("t.golden: name: got %q, want letters, digits, dots and dashes", a.Name)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	base := strings.TrimSuffix(filepath.Base(t.file.path), Suffix)
	path := filepath.Join(filepath.Dir(t.file.path), "testdata", base, a.Name+".golden")
	if other, taken := t.suite.goldens.LoadOrStore(path, t.name); taken {
		return nil, fmt.Errorf("t.golden: %s is used twice (also by %s); give it another name", t.suite.relative(path), other)
	}
	if t.suite.o.Update {
		return starlark.None, t.writeGolden(path, text)
	}
	want, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &assertion{message: "there is no golden file " + t.suite.relative(path), detail: "write it with: " + t.regenerate()}
	case err != nil:
		return nil, fmt.Errorf("t.golden: %w", err)
	case string(want) == text:
		return starlark.None, nil
	}
	shown := t.suite.relative(path)
	return nil, &assertion{
		message: "differs from " + shown,
		detail:  unified(shown, "this run", string(want), text) + "\nif this is as it should be, rewrite it with: " + t.regenerate(),
	}
}

func (t *test) regenerate() string {
	return fmt.Sprintf("rutter test %s --run '^%s$' --update", t.file.shown, t.name)
}

// writeGolden replaces the file whole, and leaves alone one that is the same.
func (t *test) writeGolden(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- goldens lie in the source
		return fmt.Errorf("t.golden: %w", err)
	}
	if err := env.ReplaceFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("t.golden: %w", err)
	}
	t.written = append(t.written, t.suite.relative(path))
	return nil
}
