package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
)

// Store is the state folder with the journals of all runs.
type Store struct {
	fs    FS
	root  string
	clock env.Clock
	rand  io.Reader
}

// NewStore is the store in root (which need not exist yet) on fsys.
func NewStore(fsys FS, root string, clock env.Clock, rand io.Reader) *Store {
	return &Store{fs: fsys, root: root, clock: clock, rand: rand}
}

// DefaultRoot is $XDG_STATE_HOME/rutter/runs, by default in ~/.local/state.
func DefaultRoot(getenv func(string) string) (string, error) {
	// A relative XDG path is to be ignored (XDG Base Directory Specification).
	if x := getenv("XDG_STATE_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "rutter", "runs"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", &diag.Error{
			Code: diag.Usage, Subject: "state folder", Problem: "neither XDG_STATE_HOME nor HOME is set",
			Next: "set XDG_STATE_HOME to a folder of yours",
		}
	}
	return filepath.Join(home, ".local", "state", "rutter", "runs"), nil
}

// Root is the folder with a directory for each run.
func (s *Store) Root() string { return s.root }

// Dir is the directory of a run. Other things that belong to the run (the
// simulated cluster's store) live in it too.
func (s *Store) Dir(run string) string { return filepath.Join(s.root, run) }

// NewID makes a run id that sorts by time: 20260101-120000-ab3d.
func (s *Store) NewID() (string, error) { return NewID(s.clock.Now(), s.rand) }

// NewID makes a run id from a time and four random characters.
func NewID(now time.Time, rand io.Reader) (string, error) {
	// No vowels and nothing that looks alike, so that no id spells a word or is
	// misread from a screenshot.
	const letters = "23456789bcdfghjkmnpqrstvwxz"
	var b [4]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", fmt.Errorf("run id: %w", err)
	}
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return now.UTC().Format("20060102-150405-") + string(b[:]), nil
}

// Create begins the journal of a new run.
func (s *Store) Create(run string) (Journal, error) { return Create(s.fs, s.root, run, s.clock) }

// Open opens the journal of a run to go on with it.
func (s *Store) Open(run string) (Journal, error) { return Open(s.fs, s.root, run, s.clock) }

// Read yields the records of a run without taking its lock or changing
// anything: of a live run, as far as it has come. A torn tail just ends it.
func (s *Store) Read(run string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		readFile(s.fs, filepath.Join(s.Dir(run), journalName), run, -1, yield)
	}
}

// Verify reads a blob of a run and says what is wrong with it: errors match
// fs.ErrNotExist or ErrDamaged.
func (s *Store) Verify(run, digest string) error {
	b := blobs{fs: s.fs, dir: filepath.Join(s.Dir(run), blobsName)}
	_, err := b.Get(digest)
	return err
}

// Summary is a run as "rutter runs" shows it.
type Summary struct {
	Run        string    `json:"run"`
	Status     RunStatus `json:"status"`
	Runbook    string    `json:"runbook"`
	Version    string    `json:"version,omitempty"`
	Context    string    `json:"context,omitempty"`
	ClusterUID string    `json:"clusterUID,omitempty"`
	From       string    `json:"from,omitempty"`
	To         string    `json:"to,omitempty"`
	Started    time.Time `json:"started"`
	Ended      time.Time `json:"ended,omitzero"`
	Steps      int       `json:"steps"`   // finished
	Effects    int       `json:"effects"` // intents
	Resumes    int       `json:"resumes,omitempty"`
	PID        int       `json:"pid,omitempty"` // of the process that holds it
	Error      string    `json:"error,omitempty"`
}

// List is all runs, newest first. Every record of each journal is verified; only
// begin, resume, end and the ends of steps are decoded. A run that can't be read
// is listed with status damaged or newer-format rather than failing the list.
func (s *Store) List() ([]Summary, error) {
	names, err := s.fs.ReadDir(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(s.fs, s.root, "the state folder", err)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(names)))
	var all []Summary
	for _, name := range names {
		sum, err := s.Summary(name)
		if errors.Is(err, ErrNoRun) {
			continue // something else in the folder
		}
		if err != nil {
			return nil, err
		}
		all = append(all, sum)
	}
	return all, nil
}

// Latest is the newest run; ErrNoRun if there is none.
func (s *Store) Latest() (Summary, error) {
	all, err := s.List()
	if err != nil {
		return Summary{}, err
	}
	if len(all) == 0 {
		return Summary{}, fmt.Errorf("%s: %w", s.root, ErrNoRun)
	}
	return all[0], nil
}

// Find turns what a person types into a run id: the id, an unambiguous
// beginning or end of one ("ab3d"), or "latest".
func (s *Store) Find(arg string) (string, error) {
	names, err := s.fs.ReadDir(s.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unreadable(s.fs, s.root, "the state folder", err)
	}
	if arg == "latest" {
		sum, err := s.Latest()
		return sum.Run, err
	}
	var hits []string
	for _, n := range names {
		switch {
		case n == arg:
			return n, nil
		case arg != "" && (strings.HasPrefix(n, arg) || strings.HasSuffix(n, arg)):
			hits = append(hits, n)
		}
	}
	if len(hits) == 1 {
		return hits[0], nil
	}
	e := &diag.Error{Code: diag.Usage, Subject: "run " + arg, Err: ErrNoRun, Next: "rutter runs"}
	if len(hits) > 1 {
		sort.Strings(hits)
		e.Err, e.Problem = nil, "ambiguous: "+strings.Join(hits, ", ")
	} else if near := diag.Nearest(arg, names); near != "" {
		e.Expect = "perhaps " + near
	}
	return "", e
}

// Summary reads one run as List does. ErrNoRun when there is no journal.
func (s *Store) Summary(run string) (Summary, error) {
	sum := Summary{Run: run, Status: RunNotBegun}
	err := s.summarize(&sum)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sum, fmt.Errorf("run %s: %w", run, ErrNoRun)
	case errors.Is(err, ErrNewer):
		sum.Status, sum.Error = RunNewer, err.Error()
	case errors.Is(err, ErrDamaged):
		sum.Status, sum.Error = RunDamaged, err.Error()
	case err != nil:
		return sum, fmt.Errorf("run %s: %w", run, err)
	}
	held, pid, err := s.fs.Held(filepath.Join(s.Dir(run), lockName))
	if err != nil {
		return sum, fmt.Errorf("run %s: %w", run, err)
	}
	if held {
		sum.Status, sum.PID = RunRunning, pid
	}
	return sum, nil
}

func (s *Store) summarize(sum *Summary) error {
	outcomes := 0
	err := skim(s.fs, filepath.Join(s.Dir(sum.Run), journalName), sum.Run, func(t Type, rec func() (Record, error)) error {
		switch t {
		case TypeIntent:
			sum.Effects++
		case TypeOutcome:
			outcomes++
		case TypeBegin, TypeEnd, TypeResume, TypeStepEnd:
			r, err := rec()
			if err != nil {
				return err
			}
			return sum.take(&r)
		}
		return nil
	})
	if sum.Status == RunInterrupted && outcomes < sum.Effects {
		sum.Status = RunInDoubt
	}
	return err
}

func (sum *Summary) take(r *Record) error {
	body, err := r.Decode()
	if err != nil {
		return err
	}
	switch b := body.(type) {
	case *Begin:
		sum.Status, sum.Started = RunInterrupted, r.Time
		sum.Runbook, sum.Version, sum.From, sum.To = b.Runbook, b.RunbookVersion, b.From, b.To
		sum.Context, sum.ClusterUID = b.Context, b.ClusterUID
	case *StepEnd:
		if b.OK || b.Handled { // else it runs again on resume
			sum.Steps++
		}
	case *Resume:
		sum.Status, sum.Error, sum.Ended = RunInterrupted, "", time.Time{}
		sum.Resumes++
	case *End:
		sum.Status, sum.Error, sum.Ended = b.Status, b.Error, r.Time
	}
	return nil
}
