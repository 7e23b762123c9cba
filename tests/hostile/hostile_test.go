// Package hostile holds inputs that try to crash the host, to take its memory,
// to get past its gates, to read a Secret, or to write to somebody's terminal.
// Each runs in a process of its own, as the command line runs a runbook: the
// process must not die, its memory must stay within bounds, the error must name
// the line, and the journal must be sealed and readable.
package hostile

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/journal"
)

const (
	runID    = "hostile"
	childEnv = "RUTTER_HOSTILE_INPUT"
	// planted stands in a Secret of the cluster. It must be nowhere else.
	planted = "hunter2-PLANTED-s3cret"
	// maxRSS bounds a child: its limit, half of it that garbage may take, and as
	// much again that an operation may have made before anybody looked.
	maxRSS   = 4 * memory
	patience = 4 * time.Minute
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(child(dir, os.Getenv(childEnv+"_ENTRY")))
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
}

var header = regexp.MustCompile(`(?m)^# (exit|error|out|link|keyless)\b ?(.*)$`)

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
	for _, in := range all {
		t.Run(in.name, func(t *testing.T) {
			t.Parallel()
			in.run(t)
		})
	}
}

func (in *input) run(t *testing.T) {
	dir := t.TempDir()
	in.write(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = []string{childEnv + "=" + dir, childEnv + "_ENTRY=" + in.entry}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	rss := peak(cmd.ProcessState)
	t.Logf("%s, %d MiB, exit %d\n%s", time.Since(began).Round(time.Millisecond), rss>>20, cmd.ProcessState.ExitCode(), head(stderr.String()))
	text := stderr.String()
	if got := cmd.ProcessState.ExitCode(); got != in.exit {
		t.Errorf("exit %d, want %d\nstdout: %s\nstderr: %s", got, in.exit, head(stdout.String()), head(text))
	}
	if crashed.MatchString(text) {
		t.Errorf("the host crashed:\n%s", head(text))
	}
	if rss > maxRSS {
		t.Errorf("took %d MiB, want at most %d", rss>>20, maxRSS>>20)
	}
	for _, re := range in.errors {
		if !re.MatchString(text) {
			t.Errorf("the error does not match %q:\n%s", re, head(text))
		}
	}
	for _, re := range in.out {
		if !re.MatchString(stdout.String()) {
			t.Errorf("what is shown does not match %q:\n%s", re, head(stdout.String()))
		}
	}
	if in.at != "" && !regexp.MustCompile(regexp.QuoteMeta(in.at)+`\d+`).MatchString(text) {
		t.Errorf("the error does not name %sCOL:\n%s", in.at, head(text))
	}
	in.sealed(t, dir)
	in.kept(t, dir, stdout.String(), text)
}

var crashed = regexp.MustCompile(`(?m)^(panic:|fatal error:|runtime: |goroutine \d+ \[)|failed inside:|the interpreter failed:`)

func peak(s *os.ProcessState) int64 {
	u := s.SysUsage().(*syscall.Rusage)
	if isLinux {
		return u.Maxrss << 10
	}
	return u.Maxrss
}

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
