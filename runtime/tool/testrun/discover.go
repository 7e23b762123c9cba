package testrun

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/diag"
)

// Discover finds the test files below the paths (files or folders, relative to
// workdir), sorted, each once. Folders named testdata, and those whose name
// begins with a dot, are left out. A path that is not there, and a file that is
// no test file, are usage errors.
func Discover(workdir string, paths []string) ([]string, error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var out []string
	for _, p := range paths {
		path := p
		if !filepath.IsAbs(path) {
			path = filepath.Join(workdir, path)
		}
		st, err := os.Stat(path)
		if err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: p, Problem: "cannot be read", Err: err, Expect: "a file *" + Suffix + " or a folder"}
		}
		if !st.IsDir() {
			if !strings.HasSuffix(path, Suffix) {
				return nil, &diag.Error{Code: diag.Usage, Subject: p, Problem: "is no test file", Expect: "a file *" + Suffix + " or a folder"}
			}
			out = append(out, path)
			continue
		}
		if out, err = walk(path, out); err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: p, Problem: "cannot be searched", Err: err}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func walk(root string, out []string) ([]string, error) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, Suffix):
			out = append(out, path)
		}
		return nil
	})
	return out, err
}
