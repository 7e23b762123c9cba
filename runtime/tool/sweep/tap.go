package sweep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/journal"
)

// sent is a request that the server got and that would change something.
type sent struct {
	method, path string
	key          string // of the effect, where the request names it
	uid          string // that it demands of its target
	code         int    // of the server's answer
}

// what is the request as two runs have it in common: pods have made-up names.
func (s sent) what() string {
	p := strings.Split(s.path, "/")
	for i := range p {
		if p[i] == "pods" && i+1 < len(p) {
			p[i+1] = "*"
		}
	}
	return s.method + " " + strings.Join(p, "/")
}

func (s sent) took() bool { return s.code >= 200 && s.code < 300 }

// wire is between a process and the cluster.
type wire struct {
	p    *process
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t wire) RoundTrip(r *http.Request) (*http.Response, error) {
	p := t.p
	p.turn.Lock() // waits that watch do so beside the run
	defer p.turn.Unlock()
	if p.dead() {
		return reset(r, nil)
	}
	if waits(r) {
		return p.watch(r, t.next)
	}
	p.requests++
	what := r.Method + " " + r.URL.RequestURI()
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	s, writes := mutation(r, body)
	var f *fault
	if p.strikes(what) {
		f = p.plan.fault
		p.struck = what
		if f.writes && r.Method == http.MethodGet {
			f = nil
		}
	}
	if p.plan.onRequest != nil {
		p.plan.onRequest(point{get: r.Method == http.MethodGet, writes: writes, what: what})
	}
	if f != nil && f.silent > 0 {
		defer p.w.sim.Advance(f.silent)
	}
	if f != nil && !f.after {
		return f.answer(r, nil)
	}
	if writes {
		p.w.onRecord(s)
	}
	resp, err := t.next.RoundTrip(r)
	if writes && err == nil {
		s.code = resp.StatusCode
		p.w.sent = append(p.w.sent, s)
		p.w.limits.sent(p.w, s, body)
	}
	if err == nil && f != nil {
		return f.answer(r, resp)
	}
	return resp, err
}

func bodyOf(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return b, nil
}

// mutation reads a request, and reports whether it changes something that is
// the run's to change: no dry run, no review, not the lock's Lease.
func mutation(r *http.Request, body []byte) (sent, bool) {
	s := sent{method: r.Method, path: r.URL.Path}
	if r.Method == http.MethodGet || review(s.path) || r.URL.Query().Has("dryRun") || strings.Contains(s.path, "/apis/coordination.k8s.io/") {
		return s, false
	}
	var o struct {
		Metadata struct {
			Name, UID   string
			Annotations map[string]string
		}
		DryRun        []string
		Preconditions struct{ UID string }
		DeleteOptions struct { // of an eviction
			DryRun        []string
			Preconditions struct{ UID string }
		}
	}
	if err := json.Unmarshal(body, &o); err != nil {
		var ops []struct {
			Path  string
			Value any
		}
		if json.Unmarshal(body, &ops) == nil {
			for _, op := range ops {
				marks, _ := op.Value.(map[string]any)
				if v, ok := marks[cluster.AnnotationEffect].(string); ok {
					s.key = v
				}
				if v, ok := op.Value.(string); ok && strings.HasSuffix(op.Path, strings.ReplaceAll(cluster.AnnotationEffect, "/", "~1")) {
					s.key = v
				}
			}
		}
		return s, true
	}
	s.key, s.uid = o.Metadata.Annotations[cluster.AnnotationEffect], o.Metadata.UID
	for _, uid := range []string{o.Preconditions.UID, o.DeleteOptions.Preconditions.UID} {
		if uid != "" {
			s.uid = uid
		}
	}
	if r.Method == http.MethodPost && !strings.HasSuffix(s.path, "/"+o.Metadata.Name) && !strings.HasSuffix(s.path, "/eviction") {
		s.path += "/" + o.Metadata.Name
	}
	return s, len(o.DryRun) == 0 && len(o.DeleteOptions.DryRun) == 0
}

// onRecord demands that the journal's disk, as a power cut would leave it,
// holds an Intent without an Outcome for a request that is about to reach the
// server.
func (w *world) onRecord(s sent) {
	key := s.key
	if key == "" {
		key = w.intentFor(s)
	}
	if key == "" || !w.open[key] {
		w.breaks("%s %s: no open intent (key %q)", s.method, s.path, s.key)
		return
	}
	b, err := w.disk.Durable(path.Join(root, w.run, "journal"))
	if err != nil {
		w.breaks("journal: %v", err)
		return
	}
	quoted, err := json.Marshal(key)
	if err != nil || !bytes.Contains(b, quoted) {
		w.breaks("%s %s: its intent is not on the disk", s.method, s.path)
	}
}

// intentFor is the open intent that a deletion or eviction belongs to.
func (w *world) intentFor(s sent) string {
	name := path.Base(strings.TrimSuffix(s.path, "/eviction"))
	for key, ef := range w.intents {
		if w.open[key] && ef.Ref.Name == name && (ef.Verb == effect.Delete || ef.Verb == effect.Evict) && ef.UID == s.uid {
			return key
		}
	}
	return ""
}

// ledgered notes the intents and outcomes that pass.
type ledgered struct {
	journal.Journal
	p *process
}

// Append implements journal.Journal.
func (l ledgered) Append(b journal.Body, sync bool) (uint64, error) {
	n, err := l.Journal.Append(b, sync)
	if err != nil {
		return n, err
	}
	l.p.w.note(b)
	switch b := b.(type) {
	case *journal.Intent:
		l.p.w.held(b)
	case *journal.StepEnd:
		if l.p.plan.onStep != nil {
			l.p.plan.onStep(l.p, b)
		}
	}
	return n, nil
}

func (w *world) note(b journal.Body) {
	switch b := b.(type) {
	case *journal.Intent:
		w.open[b.Key], w.intents[b.Key] = true, b.Effect
		w.told["changed "+b.Step] = "" // what is read before a change is not read again
	case *journal.Outcome:
		w.open[b.Key] = false
	case *journal.Begin:
		w.begun = true
	case *journal.StepStart:
		w.steps[b.Path] = "begun"
	case *journal.StepEnd:
		w.steps[b.Path] = fmt.Sprintf("ended, well %t, handled %t", b.OK, b.Handled)
		w.told["value "+b.Path] = valueOf(b)
		w.strayed = w.strayed || b.Handled
	case *journal.Call:
		w.told[fmt.Sprintf("call %s %d", b.Step, b.Seq)] = b.Builtin + b.Args + string(b.Value.Inline) + b.Value.Blob + b.Error
		w.strayed = w.strayed || b.Step == "" && b.Error != ""
	case *journal.Approval:
		w.told[fmt.Sprintf("leave %s %s %s %s", b.Step, b.Gate, b.Object, b.Effect)] = b.By
	}
}

// platter is between a process and its disk.
type platter struct {
	journal.FS
	p *process
}

// errDead is what a dead host's disk gives.
var errDead = errors.New("the host is dead")

// op is called before each operation that changes the disk.
func (d platter) op(kind string) error {
	p := d.p
	if p.dead() {
		return errDead
	}
	p.ops++
	if p.plan.onDisk != nil {
		p.plan.onDisk(p.ops, kind)
	}
	if p.ops == p.plan.killAt {
		p.die()
		return errDead
	}
	return nil
}

// Mkdir implements journal.FS.
func (d platter) Mkdir(name string) error {
	return or(d.op("mkdir"), func() error { return d.FS.Mkdir(name) })
}

// SyncDir implements journal.FS.
func (d platter) SyncDir(name string) error {
	return or(d.op("syncdir"), func() error { return d.FS.SyncDir(name) })
}

// Rename implements journal.FS.
func (d platter) Rename(from, to string) error {
	return or(d.op("rename"), func() error { return d.FS.Rename(from, to) })
}

// Remove implements journal.FS.
func (d platter) Remove(name string) error {
	return or(d.op("remove"), func() error { return d.FS.Remove(name) })
}

// Create implements journal.FS.
func (d platter) Create(name string) (journal.File, error) {
	if err := d.op("create"); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name)
	return handle{f, d}, err
}

// Append implements journal.FS.
func (d platter) Append(name string) (journal.File, error) {
	f, err := d.FS.Append(name)
	return handle{f, d}, err
}

func or(err error, do func() error) error {
	if err != nil {
		return err
	}
	return do()
}

type handle struct {
	journal.File
	d platter
}

// Write implements io.Writer.
func (h handle) Write(b []byte) (int, error) {
	if err := h.d.op("write"); err != nil {
		return 0, err
	}
	return h.File.Write(b)
}

// Sync implements journal.File.
func (h handle) Sync() error { return or(h.d.op("sync"), h.File.Sync) }

// Truncate implements journal.File.
func (h handle) Truncate(n int64) error {
	return or(h.d.op("truncate"), func() error { return h.File.Truncate(n) })
}

// process is one process that works on the run.
type process struct {
	w        *world
	plan     plan
	ops      int
	turn     sync.Mutex // of the requests
	requests int
	watches  int
	passed   int // requests of the one that plan.strike names
	struck   string

	mu     sync.Mutex
	killed bool
	isBack bool // and was left there
	kill   context.CancelCauseFunc
	left   *world // what a killed process left
}

// plan is what happens to a process. Points count from 1; 0 is never.
type plan struct {
	killAt     int  // operation on the disk before which the host dies
	failAt     int  // request that goes wrong, or
	strike     *nth // the one that does
	cutAt      int  // watch that goes wrong
	undoing    bool // the process rolls back
	watching   bool // waits watch, and don't poll
	fault      *fault
	watchFault watchFault
	onDisk     func(op int, kind string)
	onRequest  func(point)
	onStep     func(*process, *journal.StepEnd)
}

// nth is one of the requests of a process that are the same, from 1. Requests
// that are made side by side come in any order; this finds them in each.
type nth struct {
	what string
	no   int
}

// strikes reports whether the process's latest request is to go wrong.
func (p *process) strikes(what string) bool {
	if s := p.plan.strike; s != nil {
		if what == s.what {
			p.passed++
		}
		return what == s.what && p.passed == s.no
	}
	return p.requests == p.plan.failAt
}

// over reports whether what was planned for the process's requests happened.
func (p *process) over() bool {
	return p.struck != "" || p.plan.failAt == 0 && p.plan.strike == nil
}

func (p *process) dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// die keeps the world as it is, and lets the process run out where nothing of
// it counts any more.
func (p *process) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed, p.left = true, p.w.fork()
	p.kill(errDead)
}

func (w *world) breaks(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}
