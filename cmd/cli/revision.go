package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/catalogue"
	"rutter.dev/rutter/runtime/deps"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/host"
)

// runbooksAt is a runbook, or a folder of them, as a version names it.
type runbooksAt struct {
	path   string // of the file or folder
	folder bool
	root   string // that may be loaded from; "" for the nearest
	temp   string // to be removed
}

func (v *runbooksAt) close() {
	if v.temp != "" {
		_ = os.RemoveAll(v.temp) // the system empties that folder, too
	}
}

// versionOf finds what OLD or NEW means: a path, or REV:PATH of the repository
// that the working folder is in.
func (a *app) versionOf(ctx context.Context, h *host.Host, name string) (*runbooksAt, error) {
	abs := a.abs(name)
	if st, err := os.Stat(abs); err == nil {
		return &runbooksAt{path: abs, folder: st.IsDir()}, nil
	}
	rev, inside, ok := strings.Cut(name, ":")
	if !ok { // of the catalogue, or at a version
		l, err := a.source(ctx, h, name, "")
		if err != nil {
			return nil, err
		}
		closeQuietly(l.Loader)
		return &runbooksAt{path: l.name, root: l.root}, nil
	}
	if !filepath.IsLocal(filepath.FromSlash(inside)) {
		return nil, diag.Usagef(name, "expected REV:PATH with a path from the repository's own folder on")
	}
	if strings.HasPrefix(rev, "-") {
		return nil, diag.Usagef(name, "%q is no git revision", rev)
	}
	temp, err := os.MkdirTemp("", "rutter-review-")
	if err != nil {
		return nil, err
	}
	v := &runbooksAt{path: filepath.Join(temp, filepath.FromSlash(inside)), root: temp, temp: temp}
	if err := checkOut(ctx, a.env.Workdir, rev, temp); err != nil {
		v.close()
		return nil, &diag.Error{Code: diag.Usage, Subject: name, Err: err, Changed: "nothing", Expect: "a file, a folder, or REV:PATH of the git repository here"}
	}
	st, err := os.Stat(v.path)
	if err != nil {
		v.close()
		return nil, diag.Usagef(name, "revision %s has no %s", rev, inside)
	}
	v.folder = st.IsDir()
	return v, nil
}

// dependenciesHere refuses a version whose locked dependencies are not on this
// machine as they are locked: that says nothing of its runbooks, and fetching them is
// for whoever runs this to decide.
func (a *app) dependenciesHere(ctx context.Context, v *runbooksAt, name string) error {
	if !filepath.IsAbs(v.path) {
		return nil // of the catalogue
	}
	dir, root := v.path, v.root
	if !v.folder {
		dir = filepath.Dir(v.path)
	}
	if root == "" {
		root = rootOf(v.path)
	}
	mod, err := deps.Find(dir, root)
	if err != nil || mod.File == nil || len(mod.File.Dependencies) == 0 {
		return nil // what does not load is compared as that
	}
	states, err := a.modules().States(ctx, mod)
	if err != nil {
		return nil // as well
	}
	var faults []error
	for _, s := range states {
		switch {
		case s.Place == deps.Missing:
			faults = append(faults, fmt.Errorf("dependency %s %s is not on this machine", s.Name, s.Version))
		case s.Problem != "" && s.Place != deps.InFolder:
			faults = append(faults, errors.New(s.Problem))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	next := "rutter deps fetch"
	if v.temp != "" {
		rev, _, _ := strings.Cut(name, ":")
		next = "git worktree add ../before " + rev + ", then rutter deps fetch --module ../before"
	}
	return &diag.Error{Code: diag.Usage, Subject: name, Err: errors.Join(faults...), Changed: "nothing", Expect: "every dependency that its rutter.lock has in vendor/ or the cache", Next: next}
}

// checkOut writes the regular files of a revision into a folder. Links are left
// out: runbooks load nothing through them.
func checkOut(ctx context.Context, repository, rev, to string) error {
	top, err := git(ctx, repository, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	data, err := git(ctx, strings.TrimSpace(string(top)), "archive", "--format=tar", rev)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // what was written was closed
	for t := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(filepath.FromSlash(h.Name)), 0o700); err != nil {
			return err
		}
		b, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		if err := root.WriteFile(filepath.FromSlash(h.Name), b, 0o600); err != nil {
			return err
		}
	}
}

// git asks the git that is installed. No shell is involved.
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...) // #nosec G204 -- arguments of git, with no shell between
	cmd.Dir = dir
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return nil, errors.New("git " + args[0] + ": " + text)
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// runbookFile is one version of one runbook; the zero value is none.
type runbookFile struct{ path, root string }

// pair is a runbook in both versions.
type pair struct {
	name    string
	was, is runbookFile
}

// paired lists the runbooks to compare.
func paired(was, is *runbooksAt) ([]pair, error) {
	if was.folder != is.folder {
		return nil, diag.Usagef(was.path, "compare two files or two folders, not one with the other")
	}
	if !was.folder {
		return []pair{{name: strings.TrimSuffix(filepath.Base(is.path), ".star"), was: runbookFile{was.path, was.root}, is: runbookFile{is.path, is.root}}}, nil
	}
	before, err := runbooksIn(was)
	if err != nil {
		return nil, err
	}
	after, err := runbooksIn(is)
	if err != nil {
		return nil, err
	}
	names := slices.Concat(before, after)
	slices.Sort(names)
	var out []pair
	for _, name := range slices.Compact(names) {
		p := pair{name: strings.TrimSuffix(name, ".star")}
		if slices.Contains(before, name) {
			p.was = runbookFile{filepath.Join(was.path, filepath.FromSlash(name)), was.root}
		}
		if slices.Contains(after, name) {
			p.is = runbookFile{filepath.Join(is.path, filepath.FromSlash(name)), is.root}
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, diag.Usagef(is.path, "no runbook is in it")
	}
	return out, nil
}

// runbooksIn lists the runbooks of a folder: modules that call runbook(…).
func runbooksIn(v *runbooksAt) ([]string, error) {
	var out []string
	root, err := os.OpenRoot(v.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read
	files := env.RootFS(root)
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == deps.Vendor {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || path.Ext(name) != ".star" || strings.HasSuffix(name, "_test.star") {
			return err
		}
		b, err := fs.ReadFile(files, name)
		if catalogue.Declares(string(b)) {
			out = append(out, name)
		}
		return err
	})
	return out, err
}
