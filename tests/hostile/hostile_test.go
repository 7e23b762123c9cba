// Package hostile holds inputs that try to crash the host, to take its memory,
// to get past its gates, to read a Secret, or to write to somebody's terminal.
// They run in processes apart, as the command line runs a runbook: the process
// must not die, its memory must stay within bounds, the error must name the line,
// and the journal must be sealed and readable. Inputs that are to use up a budget
// have a process each; the others share some, which must outlive them all.
package hostile

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/sys/unix"

	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/journal"
)

const (
	runID    = "hostile"
	childEnv = "RUTTER_HOSTILE_INPUTS"
	// planted stands in a Secret of the cluster. It must be nowhere else.
	planted = "hunter2-PLANTED-s3cret"
	// maxRSS bounds a child's memory, all told: the larger limit, half of it that
	// garbage may take, and the program itself.
	maxRSS   = 512 << 20
	patience = 4 * time.Minute
)

func TestMain(m *testing.M) {
	if list := os.Getenv(childEnv); list != "" {
		os.Exit(child(list))
	}
	os.Exit(m.Run())
}

// input is one hostile input: files, and what is expected.
type input struct {
	name   string
	entry  string
	files  map[string]string
	exit   int
	errors []*regexp.Regexp // in the error
	out    []*regexp.Regexp // in what is shown
	at     string           // file:line that the error must name; "" for any
	loads  bool             // it runs: there is a journal
	links  map[string]string
	pipes  []string
	base   string // the folder of its own, while it runs
}

var header = regexp.MustCompile(`(?m)^# (exit|error|out|link|pipe|keyless)\b ?(.*)$`)

// here marks the line that the error must name.
const here = "#!"

func parse(t *testing.T, name string, raw []byte) *input {
	t.Helper()
	in := &input{name: name, files: map[string]string{}, entry: "input.star", exit: 2, links: map[string]string{}}
	comment := string(raw)
	if strings.HasSuffix(name, ".txtar") {
		a := txtar.Parse(raw)
		comment = string(a.Comment)
		for _, f := range a.Files {
			in.files[f.Name] = string(f.Data)
		}
	} else {
		in.files[in.entry] = string(raw)
	}
	for _, m := range header.FindAllStringSubmatch(comment, -1) {
		switch m[1] {
		case "exit":
			n, err := strconv.Atoi(m[2])
			if err != nil {
				t.Fatalf("exit: %v", err)
			}
			in.exit = n
		case "error":
			in.errors = append(in.errors, regexp.MustCompile(m[2]))
		case "out":
			in.out = append(in.out, regexp.MustCompile(m[2]))
		case "link":
			from, to, _ := strings.Cut(m[2], " ")
			in.links[from] = to
		case "pipe":
			in.pipes = append(in.pipes, m[2])
		case "keyless":
			in.files["keyless"] = ""
		}
	}
	in.finish()
	return in
}

func (in *input) finish() {
	src := in.files[in.entry]
	if !strings.Contains(src, "runbook(") {
		src += "\nrunbook(name = \"hostile\", version = \"1.0.0\")\n"
		if !strings.Contains(src, "def run(") {
			src += "\ndef run(p):\n    pass\n"
		}
		in.files[in.entry] = src
	}
	for name, text := range in.files {
		for i, line := range strings.Split(text, "\n") {
			if strings.HasSuffix(line, here) {
				in.at = fmt.Sprintf("%s:%d:", name, i+1)
			}
		}
	}
}

func TestHostile(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*")
	if err != nil {
		t.Fatal(err)
	}
	all := made()
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parse(t, strings.TrimPrefix(filepath.ToSlash(f), "testdata/"), raw))
	}
	if len(all) < 120 {
		t.Errorf("%d inputs, want at least 120", len(all))
	}
	for name, group := range grouped(all) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			group.run(t)
		})
	}
}

// shared is how many inputs share a process.
const shared = 16

// group is a number of inputs that one process gets, one after the other.
type group []*input

// grouped gives each group with its name.
func grouped(all []*input) iter.Seq2[string, group] {
	return func(yield func(string, group) bool) {
		var common group
		for _, in := range all {
			if in.alone() && !yield("alone", group{in}) {
				return
			}
			if !in.alone() {
				common = append(common, in)
			}
		}
		for some := range slices.Chunk(common, shared) {
			if !yield("shared", some) {
				return
			}
		}
	}
}

// alone reports whether the input is to take all that it may have.
func (in *input) alone() bool {
	return slices.ContainsFunc(in.errors, func(re *regexp.Regexp) bool { return strings.Contains(re.String(), "budget") })
}

// run has the inputs run, and then judges each. Where the process dies, the input
// that it had is to blame, and those after it get another process.
func (g group) run(t *testing.T) {
	top := t.TempDir()
	for i, in := range g {
		in.base = filepath.Join(top, strconv.Itoa(i))
		in.write(t, filepath.Join(in.base, "in"))
	}
	for left := g; len(left) > 0; {
		died := left.process(t, filepath.Join(top, "list"))
		for len(left) > 0 && exists(filepath.Join(left[0].base, "outcome")) {
			in := left[0]
			t.Run(in.name, func(t *testing.T) { in.judge(t) })
			left = left[1:]
		}
		if len(left) > 0 {
			t.Run(left[0].name, func(t *testing.T) { t.Errorf("the host died: %s", died) })
			left = left[1:]
		}
	}
}

// process runs one process, and is what it said as it died.
func (g group) process(t *testing.T, list string) (died string) {
	t.Helper()
	items := make([]item, 0, len(g))
	for _, in := range g {
		limits := enough
		if in.alone() {
			limits = little
		}
		items = append(items, item{Base: in.base, Entry: in.entry, Limits: limits})
	}
	b, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = []string{childEnv + "=" + list}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	if err != nil || said.Len() > 0 {
		return fmt.Sprintf("%v\n%s", err, head(said.String()))
	}
	return ""
}

func (in *input) judge(t *testing.T) {
	t.Helper()
	var o outcome
	if err := json.Unmarshal([]byte(in.text(t, "outcome")), &o); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := in.text(t, "stdout"), in.text(t, "stderr")
	t.Logf("%s of processor, %d MiB, exit %d\n%s", o.CPU.Round(time.Millisecond), o.RSS>>20, o.Exit, head(stderr))
	if o.Exit != in.exit {
		t.Errorf("exit %d, want %d\nstdout: %s\nstderr: %s", o.Exit, in.exit, head(stdout), head(stderr))
	}
	if crashed.MatchString(stderr) {
		t.Errorf("the host crashed:\n%s", head(stderr))
	}
	if o.RSS > maxRSS {
		t.Errorf("its process took %d MiB, want at most %d", o.RSS>>20, maxRSS>>20)
	}
	for _, re := range in.errors {
		if !re.MatchString(stderr) {
			t.Errorf("the error does not match %q:\n%s", re, head(stderr))
		}
	}
	for _, re := range in.out {
		if !re.MatchString(stdout) {
			t.Errorf("what is shown does not match %q:\n%s", re, head(stdout))
		}
	}
	if in.at != "" && !regexp.MustCompile(regexp.QuoteMeta(in.at)+`\d+`).MatchString(stderr) {
		t.Errorf("the error does not name %sCOL:\n%s", in.at, head(stderr))
	}
	dir := filepath.Join(in.base, "in")
	in.sealed(t, dir)
	in.kept(t, dir, stdout, stderr)
}

func (in *input) text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(in.base, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var crashed = regexp.MustCompile(`(?m)^(panic:|fatal error:|runtime: |goroutine \d+ \[)|failed inside:|the interpreter failed:`)

func head(s string) string {
	const most = 2000
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// write lays the input out in dir.
func (in *input) write(t *testing.T, dir string) {
	t.Helper()
	shared, err := os.ReadFile("testdata/shared.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "shared.yaml"), shared, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range in.files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range in.pipes {
		if err := unix.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range in.links {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
}

// sealed: where a run began, its journal ends with how it ended.
func (in *input) sealed(t *testing.T, dir string) {
	t.Helper()
	state := filepath.Join(dir, "state")
	if !exists(filepath.Join(state, runID)) {
		if in.loads {
			t.Error("there is no journal")
		}
		return
	}
	j, err := journal.Open(journal.OS{}, state, runID, env.SystemClock{})
	if err != nil {
		t.Errorf("the journal can't be opened: %v", err)
		return
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	var last journal.Body
	for rec, err := range j.Records() {
		if err != nil {
			t.Errorf("the journal can't be read: %v", err)
			return
		}
		if last, err = rec.Decode(); err != nil {
			t.Errorf("record %d: %v", rec.Seq, err)
		}
	}
	end, ok := last.(*journal.End)
	if !ok {
		t.Errorf("the journal ends with %T, want how the run ended", last)
		return
	}
	if end.Exit != in.exit {
		t.Errorf("the journal says exit %d, want %d", end.Exit, in.exit)
	}
}

// kept: no secret and no control character anywhere.
func (in *input) kept(t *testing.T, dir, stdout, stderr string) {
	t.Helper()
	for what, text := range map[string]string{"stdout": stdout, "stderr": stderr} {
		tells(t, what, text)
		if i := strings.IndexFunc(text, func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e
		}); i >= 0 {
			t.Errorf("%s holds the control character %q", what, text[i:min(len(text), i+8)])
		}
	}
	err := filepath.WalkDir(filepath.Join(dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil {
				err = mode(path, 0o700)
			}
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tells(t, path, string(b))
		return mode(path, 0o600)
	})
	if err != nil {
		t.Error(err)
	}
}

func mode(path string, want fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if got := info.Mode().Perm(); got&^want != 0 {
		return fmt.Errorf("%s: mode %04o, want at most %04o", path, got, want)
	}
	return nil
}

func tells(t *testing.T, what, text string) {
	t.Helper()
	for _, s := range []string{planted, base64.StdEncoding.EncodeToString([]byte(planted)), "PLANTED"} {
		if strings.Contains(text, s) {
			t.Errorf("%s tells the secret", what)
		}
	}
}
