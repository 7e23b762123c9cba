package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"

	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/tool/fix"
)

func (a *app) fixCmd() *cobra.Command {
	var diff bool
	cmd := &cobra.Command{
		Use:   "fix [PATH…]",
		Short: "Rewrite what runbooks use that is deprecated",
		Long: `Rewrites .star files, in files or folders (the present one by default): names, files
and arguments that a dependency deprecated (its rutter.mod.star says so), functions and
arguments whose docstring says "Deprecated: use NAME", builtins that are retired, and a
runbook that names no language level. What a file does stays the same. What can't be
rewritten is told, with its place. vendor/ is left alone.

With --diff nothing is written: the differences are shown, and the exit code is 4 where
there are any.`,
		Example: "  rutter fix --diff\n  rutter fix runbooks/upgrade.star",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.fix(cmd.Context(), args, diff) },
	}
	cmd.Flags().BoolVar(&diff, "diff", false, "show what would be rewritten, and write nothing")
	return cmd
}

func (a *app) fix(ctx context.Context, paths []string, diff bool) error {
	h, err := a.assemble(a.renderer())
	if err != nil {
		return err
	}
	files, err := a.starFiles(paths)
	if err != nil {
		return err
	}
	modules := map[string]*deps.Opened{} // by the folder of a file
	changed := false
	for _, file := range files {
		dir := filepath.Dir(file)
		if modules[dir] == nil {
			if modules[dir], err = a.opened(ctx, dir, ""); err != nil {
				return err
			}
		}
		did, err := a.fixFile(h, modules[dir], file, diff)
		if err != nil {
			return err
		}
		changed = changed || did
	}
	if changed && diff {
		return exitError(diag.Changes)
	}
	return nil
}

// fixFile rewrites one file, and reports whether there was anything to rewrite.
func (a *app) fixFile(h *host.Host, o *deps.Opened, file string, diff bool) (bool, error) {
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return false, err
	}
	defer func() { _ = root.Close() }() // what was written was closed
	rel, err := filepath.Rel(o.Dir, file)
	if err != nil {
		return false, err
	}
	src, err := root.ReadFile(rel)
	if err != nil {
		return false, &diag.Error{Code: diag.Usage, Subject: a.shown(file), Problem: "can't be read", Err: err, Changed: "nothing"}
	}
	found, text, err := fix.Source(loader.Label(filepath.ToSlash(rel)), string(src), rulesOf(h, o, nil))
	if err != nil {
		return false, err
	}
	for _, f := range found {
		f.Pos.File = a.shown(file)
		mark := "fixed"
		switch {
		case !f.Rewritten:
			mark = "left"
		case diff:
			mark = "fix"
		}
		if err := a.talk("%s  %s", mark, f); err != nil {
			return false, err
		}
	}
	if text == string(src) {
		return false, nil
	}
	if !diff {
		st, err := root.Stat(rel)
		if err != nil {
			return false, err
		}
		return true, replaceFile(root, rel, []byte(text), st.Mode().Perm())
	}
	out, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(string(src)), B: difflib.SplitLines(text), FromFile: a.shown(file), ToFile: a.shown(file) + " (fixed)", Context: 2,
	})
	if err != nil {
		return false, err
	}
	_, err = fmt.Fprint(a.env.Stdout, out)
	return true, err
}

// replaceFile writes a file as a whole: what is read meanwhile is the old or the new.
func replaceFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	temp := name + ".rutter-fix"
	if err := root.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return root.Rename(temp, name)
}

// rulesOf is what is deprecated of what a module can use. bundle is looked into first;
// it may be nil.
func rulesOf(h *host.Host, o *deps.Opened, bundle *loader.Bundle) fix.Rules {
	r := fix.Rules{API: interp.API, Builtins: h.Builtins.All()}
	if o != nil {
		r.Dependencies = o.Deprecations
	}
	r.Read = func(label string) (string, bool) {
		if bundle != nil {
			if src, ok := bundle.Files[label]; ok {
				return src, true
			}
		}
		return moduleSource(h, o, label)
	}
	return r
}

// moduleSource is the source of a module that one of o's can load: of the standard library,
// of a dependency, or of its own. There is none where it can't be read, which whoever
// loads it is told.
func moduleSource(h *host.Host, o *deps.Opened, label string) (string, bool) {
	library, file, _ := strings.Cut(label, "//")
	var fsys fs.FS
	switch {
	case loader.InStdlib(label):
		fsys = h.Stdlib
	case o == nil:
		return "", false
	case library == "":
		root, err := os.OpenRoot(o.Dir)
		if err != nil {
			return "", false
		}
		defer func() { _ = root.Close() }() // nothing is written
		fsys = root.FS()
	case o.Libraries[strings.TrimPrefix(library, "@")] != nil:
		fsys = o.Libraries[strings.TrimPrefix(library, "@")]
	default:
		return "", false
	}
	src, err := fs.ReadFile(fsys, file)
	return string(src), err == nil
}

// starFiles are the Starlark files below the paths, sorted, each once.
func (a *app) starFiles(paths []string) ([]string, error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var out []string
	for _, p := range paths {
		top := a.abs(p)
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && path != top && (d.Name() == deps.Vendor || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
				return fs.SkipDir
			case d.Type().IsRegular() && strings.HasSuffix(path, ".star") && d.Name() != loader.ModFile:
				out = append(out, path)
			case path == top && !d.IsDir():
				return fmt.Errorf("it is no .star file")
			}
			return nil
		})
		if err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: p, Problem: "can't be fixed", Err: err, Expect: "a .star file or a folder", Changed: "nothing"}
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// warnDeprecated says what a runbook uses that will not be kept, of its own files.
func (a *app) warnDeprecated(h *host.Host, l *found, rb *host.Runbook) error {
	var lines []string
	if rb.Deprecated != "" {
		lines = append(lines, fmt.Sprintf("runbook %s %s is deprecated: %s", rb.Name, rb.Version, rb.Deprecated))
	}
	if l.deps != nil {
		lines = append(lines, l.deps.Warnings...)
	}
	rules, hint := rulesOf(h, l.deps, rb.Bundle), false
	for label, src := range rb.Bundle.Files {
		if !strings.HasPrefix(label, "//") {
			continue // of a dependency: its own concern
		}
		found, _, err := fix.Source(label, src, rules)
		if err != nil {
			return err
		}
		for _, f := range found {
			if !f.Minor {
				lines = append(lines, f.String())
				hint = hint || f.Rewritten
			}
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		if err := a.talk("warning: %s", line); err != nil {
			return err
		}
	}
	if hint {
		return a.talk("warning: rutter fix rewrites that")
	}
	return nil
}
