package scripts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/journal"
)

// commands are what scripts may use besides testscript's own.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"serve": serve, "until": until, "waitfile": waitFile,
		"runid": runID, "events": events, "remember": remember, "unchanged": unchanged, "flip": flip, "cut": cut, "hold": hold, "codes": codes, "private": private,
	}
}

// private demands that nobody but its owner can read what is below a folder.
func private(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: private DIR")
	}
	n := 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			ts.Fatalf("%s has mode %04o, want %04o", path, got, want)
		}
		n++
		return nil
	}))
	if n < 3 {
		ts.Fatalf("%s holds next to nothing", args[0])
	}
}

var anID = regexp.MustCompile(`\b\d{8}-\d{6}-[a-z0-9]{4}\b`)

// runID puts the id of the run that the last command spoke of into a variable:
// runid VAR.
func runID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: runid VAR")
	}
	id := anID.FindString(ts.ReadFile("stderr") + ts.ReadFile("stdout"))
	if id == "" {
		ts.Fatalf("the last command named no run")
	}
	ts.Setenv(args[0], id)
}

// events demands that stdout is a stream of events: each line one JSON object
// with a type and a time, of the types given, among others, in this order.
func events(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! events")
	}
	n := 0
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		n++
		var e struct{ Type, Time string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Type == "" || e.Time == "" {
			ts.Fatalf("line %d is no event (%v): %s", n, err, line)
		}
		if len(args) > 0 && e.Type == args[0] {
			args = args[1:]
		}
	}
	if len(args) > 0 {
		ts.Fatalf("the %d events lack, in this order: %s", n, strings.Join(args, " "))
	}
}

// remember and unchanged hold the content of a folder to what it was:
// remember DIR, later unchanged DIR. A folder that is not there is one state.
func remember(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: remember DIR")
	}
	ts.Setenv("REMEMBERED", content(ts, args[0]))
}

func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unchanged DIR")
	}
	if now, before := content(ts, args[0]), ts.Getenv("REMEMBERED"); now != before {
		ts.Fatalf("%s changed: it was\n%sand is\n%s", args[0], before, now)
	}
}

func content(ts *testscript.TestScript, dir string) string {
	var b strings.Builder
	root := ts.MkAbs(dir)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		// Who opened a run last is in its locks; that is no change.
		if name := filepath.Base(path); name == "lock" || filepath.Ext(name) == ".lock" {
			data = nil
		}
		fmt.Fprintf(&b, "%s %d bytes %08x\n", strings.TrimPrefix(path, root), len(data), crc32.ChecksumIEEE(data))
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		ts.Fatalf("%v", err)
	}
	return b.String()
}

// flip changes one bit in the middle of a file: flip FILE.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE")
	}
	data := []byte(ts.ReadFile(args[0]))
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// cut takes the last bytes off a file, as a write that was torn does: cut FILE.
func cut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cut FILE")
	}
	data := []byte(ts.ReadFile(args[0]))
	last := bytes.LastIndexByte(data[:len(data)-1], '\n')
	ts.Check(os.Truncate(ts.MkAbs(args[0]), int64(last+20)))
}

// hold keeps a run open in this process until the script ends, as a rutter
// that still works on it does: hold STATE RUN.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hold STATE RUN")
	}
	j, err := journal.Open(journal.OS{}, ts.MkAbs(args[0]), args[1], env.SystemClock{})
	ts.Check(err)
	ts.Defer(func() { ts.Check(j.Close()) })
}

// codes demands an exact exit code: codes CODE COMMAND ARGS….
func codes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: codes CODE COMMAND [ARGS…]")
	}
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s: exit %d, want %s\n%s", strings.Join(args[1:], " "), got, args[0], ts.ReadFile("stderr"))
	}
}
