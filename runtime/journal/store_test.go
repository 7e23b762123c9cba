package journal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/diag"
)

func TestNewID(t *testing.T) {
	id, err := NewID((&tick{}).Now(), bytes.NewReader([]byte{1, 2, 3, 4}))
	if err != nil || id != "20260101-120001-3456" {
		t.Errorf("%q, %v", id, err)
	}
	if _, err := NewID((&tick{}).Now(), bytes.NewReader(nil)); err == nil {
		t.Error("no error without randomness")
	}
}

func TestListAndStatus(t *testing.T) {
	all := bodiesOfRun()
	cases := []struct {
		run    string
		bodies []Body
		want   RunStatus
		steps  int
	}{
		{"20260101-000001-aaaa", all, RunDone, 1},
		{"20260101-000002-bbbb", all[:5], RunInDoubt, 0},
		{"20260101-000003-cccc", all[:6], RunInterrupted, 0},
		{"20260101-000004-dddd", append(all[:7:7], &End{Status: RunFailed, Error: "boom"}), RunFailed, 1},
		{"20260101-000005-eeee", append(all[:7:7], &End{Status: RunFailed}, &Resume{}), RunInterrupted, 1},
		{"20260101-000006-ffff", nil, RunNotBegun, 0},
	}
	for name, fsys := range map[string]FS{"memory": NewMemFS(), "disk": OS{}} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(fsys, filepath.Join(t.TempDir(), "runs"), &tick{}, rand.Reader)
			if sums, err := s.List(); err != nil || len(sums) != 0 {
				t.Fatalf("empty store: %v, %v", sums, err)
			}
			if _, err := s.Latest(); !errors.Is(err, ErrNoRun) {
				t.Errorf("latest of none: %v", err)
			}
			for _, c := range cases {
				j, err := s.Create(c.run)
				if err != nil {
					t.Fatal(err)
				}
				for _, b := range c.bodies {
					if _, err := j.Append(b, false); err != nil {
						t.Fatal(err)
					}
				}
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
			sums, err := s.List()
			if err != nil || len(sums) != len(cases) {
				t.Fatalf("%d runs, %v", len(sums), err)
			}
			for i, c := range cases {
				got := sums[len(sums)-1-i]
				if got.Run != c.run || got.Status != c.want || got.Steps != c.steps {
					t.Errorf("got %+v, want %s %s with %d steps", got, c.run, c.want, c.steps)
				}
			}
			if sums[2].Error != "boom" || sums[2].Runbook != "istio-inplace" || sums[2].Started.IsZero() {
				t.Errorf("%+v", sums[2])
			}
			n := 0
			for _, err := range s.Read(cases[0].run) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != len(all) {
				t.Errorf("read %d records", n)
			}
			find(t, s)
		})
	}
}

func find(t *testing.T, s *Store) {
	t.Helper()
	for arg, want := range map[string]string{
		"20260101-000001-aaaa": "20260101-000001-aaaa", "bbbb": "20260101-000002-bbbb",
		"20260101-000003": "20260101-000003-cccc", "latest": "20260101-000006-ffff",
	} {
		if got, err := s.Find(arg); err != nil || got != want {
			t.Errorf("%s: %q, %v", arg, got, err)
		}
	}
	for arg, want := range map[string]string{
		"zzzz": "no such run", "2026": "ambiguous", "": "no such run", "20260101-000001-aaab": "20260101-000001-aaaa",
	} {
		_, err := s.Find(arg)
		if err == nil || !strings.Contains(err.Error(), want) || diag.ExitCode(err) != diag.Usage {
			t.Errorf("%q: %v", arg, err)
		}
	}
}

func TestOpenRefusesWhatIsNoRun(t *testing.T) {
	s := NewStore(NewMemFS(), "/s", &tick{}, rand.Reader)
	for _, run := range []string{"20260101-000001-aaaa", "", "../x", ".", "a b"} {
		if _, err := s.Open(run); !errors.Is(err, ErrNoRun) {
			t.Errorf("%q: %v", run, err)
		}
		for _, err := range s.Read(run) {
			if err == nil {
				t.Errorf("%q: read a record", run)
			}
		}
	}
}

func TestCreateTwice(t *testing.T) {
	s := NewStore(NewMemFS(), "/s", &tick{}, rand.Reader)
	j, err := s.Create(testRun)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(testRun); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(testRun); err == nil || !strings.Contains(err.Error(), "already is a run") {
		t.Error(err)
	}
}

func TestDefaultRoot(t *testing.T) {
	get := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/rutter/runs"},
		{map[string]string{"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/rutter/runs"},
		{map[string]string{"HOME": "/h"}, "/h/.local/state/rutter/runs"},
	} {
		if got, err := DefaultRoot(get(c.env)); err != nil || got != c.want {
			t.Errorf("%v: %q, %v", c.env, got, err)
		}
	}
	if _, err := DefaultRoot(get(nil)); diag.ExitCode(err) != diag.Usage {
		t.Error(err)
	}
}
