package testrun

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/loader"
)

// suite is one call of Run.
type suite struct {
	o       Options
	sims    simCache
	goldens sync.Map // path of a golden file -> the test that claimed it
}

// testFile is one loaded test file.
type testFile struct {
	path   string // absolute
	shown  string // as a person knows it
	root   string // absolute; what its runbooks may load from
	loaded *interp.Loaded
	tests  []*starlark.Function
}

// Run runs the tests of the files, GOMAXPROCS at a time, and calls each with
// every result in the order of files and lines. A test that fails does not keep
// others from running. It returns early only when ctx ends.
func Run(ctx context.Context, files []string, o Options, each func(Result)) *Summary {
	if o.Clock == nil {
		o.Clock = env.SystemClock{}
	}
	if o.Parallel <= 0 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	s := &suite{o: o}
	s.sims.make = o.NewSim
	sum := &Summary{}
	var loaded []*testFile
	for _, path := range files {
		f, err := s.load(ctx, path)
		if err != nil {
			sum.Broken = append(sum.Broken, err)
			continue
		}
		loaded = append(loaded, f)
	}
	for _, ch := range s.start(ctx, loaded) {
		r := <-ch
		sum.Results = append(sum.Results, r)
		if r.Failure == nil {
			sum.Passed++
		} else {
			sum.Failed++
		}
		each(r)
	}
	return sum
}

// start starts every selected test and returns a channel for each result.
func (s *suite) start(ctx context.Context, files []*testFile) []chan Result {
	var out []chan Result
	slots := make(chan struct{}, s.o.Parallel)
	var queue []func()
	for _, f := range files {
		for _, fn := range f.tests {
			if s.o.Select != nil && !s.o.Select.MatchString(fn.Name()) && !s.o.Select.MatchString(f.shown+"::"+fn.Name()) {
				continue
			}
			ch := make(chan Result, 1)
			out = append(out, ch)
			queue = append(queue, func() { ch <- s.test(ctx, f, fn) })
		}
	}
	go func() {
		for _, run := range queue {
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				run()
			}()
		}
	}()
	return out
}

// load loads a test file and finds its tests.
func (s *suite) load(ctx context.Context, path string) (*testFile, error) {
	f := &testFile{path: path, shown: s.relative(path), root: filepath.Dir(path)}
	if s.o.Root != nil {
		f.root = s.o.Root(path)
	}
	rel, err := filepath.Rel(f.root, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return nil, &diag.Error{Code: diag.Usage, Subject: f.shown, Problem: "lies outside of the root folder " + f.root}
	}
	l, err := s.open(ctx, f.root, filepath.ToSlash(rel))
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }() // read only: nothing can be lost
	if f.loaded, err = interp.LoadModule(ctx, l, s.o.Host.Builtins.Predeclared(), s.o.Host.Limits, nil); err != nil {
		return nil, s.placed(f, err)
	}
	if err := f.find(); err != nil {
		return nil, s.placed(f, err)
	}
	return f, nil
}

// open loads from a root, beginning with one of its files.
func (s *suite) open(ctx context.Context, root, entry string) (*loader.Loader, error) {
	if s.o.Open != nil {
		return s.o.Open(ctx, root, entry)
	}
	return loader.Dir(root, entry, s.o.Host.Stdlib, s.o.Host.Cache)
}

// find lists the functions test_… in the order in which the file has them.
func (f *testFile) find() error {
	for name, v := range f.loaded.Globals {
		fn, ok := v.(*starlark.Function)
		if !ok || !strings.HasPrefix(name, "test_") || fn.Name() != name {
			continue
		}
		if fn.NumParams() != 1 || fn.HasVarargs() || fn.HasKwargs() {
			p := fn.Position()
			return &diag.Error{
				Code: diag.Usage, Pos: diag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)},
				Problem: fmt.Sprintf("%s takes %d parameters", name, fn.NumParams()), Expect: "one: def " + name + "(t):",
			}
		}
		f.tests = append(f.tests, fn)
	}
	slices.SortFunc(f.tests, func(a, b *starlark.Function) int { return int(a.Position().Line) - int(b.Position().Line) })
	return nil
}

// test runs one test on clusters of its own.
func (s *suite) test(ctx context.Context, f *testFile, fn *starlark.Function) (r Result) {
	r = Result{File: f.shown, Name: fn.Name()}
	t := newTest(ctx, s, f, fn.Name())
	begun := s.o.Clock.Now()
	defer func() {
		if p := recover(); p != nil {
			r.Failure = &Failure{Pos: diag.Pos{File: f.shown}, Message: fmt.Sprintf("panic: %v", p), Detail: string(debug.Stack())}
		}
		t.close()
		r.Output, r.Golden = t.output, t.written
		r.Took = s.o.Clock.Now().Sub(begun)
	}()
	print := func(_ diag.Pos, msg string) { t.output = append(t.output, msg) }
	_, err := f.loaded.Call(ctx, fn, starlark.Tuple{t}, interp.ExecOptions{Limits: s.o.Host.Limits, Print: print}, func(th *starlark.Thread) {
		th.SetLocal(builtin.HostKey, builtin.Host(outside{t}))
	})
	if err != nil {
		r.Failure = s.failure(f, err)
		if p := fn.Position(); r.Failure.Pos.File == "" {
			r.Failure.Pos = s.position(f, diag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)})
		}
	}
	return r
}

func (s *suite) failure(f *testFile, err error) *Failure {
	out := &Failure{}
	var d *diag.Error
	if errors.As(err, &d) {
		out.Pos, out.Source = s.position(f, d.Pos), d.Source
		cp := *d
		cp.Pos = diag.Pos{}
		err = &cp
	}
	var a *assertion
	if errors.As(err, &a) {
		out.Message, out.Detail = a.message, a.detail
		return out
	}
	first, rest, _ := strings.Cut(err.Error(), "\n")
	out.Message, out.Detail = first, rest
	return out
}

// placed makes the position of an error in a file one that a person can open.
func (s *suite) placed(f *testFile, err error) error {
	d, ok := err.(*diag.Error)
	if !ok {
		return err
	}
	cp := *d
	cp.Pos = s.position(f, d.Pos)
	return &cp
}

// position makes a position below the root one relative to the workdir. That
// of a library stays.
func (s *suite) position(f *testFile, p diag.Pos) diag.Pos {
	if p.File != "" && !strings.HasPrefix(p.File, "@") {
		p.File = s.relative(filepath.Join(f.root, filepath.FromSlash(p.File)))
	}
	return p
}

// relative is a path as seen from the workdir, if it lies below it.
func (s *suite) relative(path string) string {
	rel, err := filepath.Rel(s.o.Workdir, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return filepath.ToSlash(rel)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
