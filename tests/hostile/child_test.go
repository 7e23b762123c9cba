package hostile

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rutter.dev/rutter/builtins/backup"
	"rutter.dev/rutter/builtins/core"
	"rutter.dev/rutter/builtins/core/lang"
	"rutter.dev/rutter/builtins/diff"
	"rutter.dev/rutter/builtins/kube"
	"rutter.dev/rutter/builtins/restart"
	"rutter.dev/rutter/cmd/cli/view"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/journal"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lock"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/runtime/value"
	"rutter.dev/rutter/stdlib"
)

// The kernel's limit for a child, so that an input that gets past rutter's shows as
// a crash and not on the machine.
const address = 16 << 30

// What rutter watches: little for those that are to use it up, so that they are
// quick, and enough for the others.
var (
	little = interp.Limits{Memory: 128 << 20, Stall: time.Second}
	enough = interp.Limits{Memory: 256 << 20, Stall: 5 * time.Second}
)

// item is one input that a child is given: base holds in/, and afterwards what the
// input said and what came of it.
type item struct {
	Base   string        `json:"base"`
	Entry  string        `json:"entry"`
	Limits interp.Limits `json:"limits"`
}

// outcome is what came of one input, as the child saw it.
type outcome struct {
	Exit int           `json:"exit"`
	RSS  int64         `json:"rss"` // the child's peak until then, in bytes
	CPU  time.Duration `json:"cpu"` // of this input
}

// child runs the inputs that list names, one after the other, each as the command
// line would: on a simulated cluster of its own, with the journal on the disk.
func child(list string) int {
	if err := children(list); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	return 0
}

func children(list string) error {
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: address, Max: address}); err != nil {
		return err
	}
	debug.SetMaxStack(address)
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var items []item
	if err := json.Unmarshal(b, &items); err != nil {
		return err
	}
	for _, it := range items {
		debug.FreeOSMemory() // what the one before left is not this one's
		_, before := used()
		var o outcome
		if o.Exit, err = one(it); err != nil {
			return err
		}
		var after time.Duration
		o.RSS, after = used()
		o.CPU = after - before
		b, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(it.Base, "outcome"), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// used is the peak of this process's memory, in bytes, and its time on processors.
func used() (rss int64, cpu time.Duration) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	rss = u.Maxrss
	if isLinux {
		rss <<= 10
	}
	return rss, time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func one(it item) (exit int, err error) {
	out, err := os.Create(filepath.Join(it.Base, "stdout"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	talk, err := os.Create(filepath.Join(it.Base, "stderr"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, talk.Close()) }()
	dir := filepath.Join(it.Base, "in")
	e := &env.Env{
		Clock: env.SystemClock{}, Rand: rand.Reader, Getenv: func(string) string { return "" }, Stdin: strings.NewReader(""),
		Stdout: out, Stderr: talk, IsTerminal: func(any) bool { return false }, Workdir: dir,
	}
	options := view.OptionsFor(e, talk, "never", 0)
	failed := carry(e, it, options)
	if failed == nil {
		return 0, nil
	}
	return int(diag.ExitCode(failed)), view.Error(talk, failed, options)
}

func carry(e *env.Env, it item, options view.Options) (err error) {
	dir := e.Workdir
	h, err := assemble(it.Limits)
	if err != nil {
		return err
	}
	c, err := populated(dir)
	if err != nil {
		return err
	}
	l, err := loader.Dir(dir, it.Entry, stdlib.FS, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	ctx := context.Background()
	rb, err := h.Load(ctx, l)
	if err != nil {
		return err
	}
	file := map[string]any{}
	if b, rerr := os.ReadFile(filepath.Join(dir, "params.yaml")); rerr == nil {
		if err := plain.Written.Unmarshal(b, &file); err != nil {
			return &diag.Error{Code: diag.Usage, Subject: "--params params.yaml", Problem: "is not YAML of name: value", Err: err}
		}
	}
	p, err := rb.Bind(nil, file)
	if err != nil {
		return err
	}
	var policy *gate.Policy
	if name := filepath.Join(dir, "policy.yaml"); exists(name) {
		p, err := h.ReadPolicy(ctx, name)
		if err != nil {
			return err
		}
		policy = &p.Policy
	}
	clock := lock.NewClock(c.Clock())
	client, err := cluster.New(c.Config(), "sim", clock, cluster.ClientOptions{})
	if err != nil {
		return err
	}
	state := filepath.Join(dir, "state")
	j, err := journal.Create(journal.OS{}, state, runID, clock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	var sealer builtin.Sealer
	if !exists(filepath.Join(dir, "keyless")) {
		if sealer, err = seal.Open(state); err != nil {
			return err
		}
	}
	e.Clock = clock
	return h.Run(ctx, ctx, host.Session{
		Env: e, Cluster: client, Journal: j, Sink: view.New(e.Stdout, options), Approver: yes{}, Policy: policy, Sealer: sealer,
		Lock:       &lock.Options{Rand: rand.Reader, Holder: "tester", Host: "test", Alone: true},
		Invocation: json.RawMessage("{}"),
		Evidence: func(name string, content []byte) (string, error) {
			path := filepath.Join(state, name)
			return path, os.WriteFile(path, content, 0o600)
		},
	}, rb, p)
}

func assemble(limits interp.Limits) (*host.Host, error) {
	var specs []*builtin.Spec
	for _, s := range [][]*builtin.Spec{
		interp.Builtins(), lang.Builtins(), core.Specs(), kube.Specs(), backup.Specs(), diff.Specs(), restart.Specs(),
	} {
		specs = append(specs, s...)
	}
	set, err := builtin.NewSet(specs...)
	if err != nil {
		return nil, err
	}
	if set, err = lang.AddTo(set); err != nil {
		return nil, err
	}
	decoders := map[string]value.Decoder{manifest.Kind: manifest.Decode}
	for _, d := range []map[string]value.Decoder{kube.Decoders(), backup.Decoders(), diff.Decoders(), restart.Decoders()} {
		maps.Copy(decoders, d)
	}
	return &host.Host{
		Builtins: set, Decoders: decoders, Stdlib: stdlib.FS, Version: "test", Cache: loader.NewCache(),
		Limits: limits,
	}, nil
}

// populated is a small cluster: what objects.yaml of this package's testdata
// holds, and the input's own.
func populated(dir string) (*sim.Cluster, error) {
	c, err := sim.New(sim.Options{Seed: 1, Controllers: controllers.All(), Injector: mesh.StubInjector{}})
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"shared.yaml", "objects.yaml"} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		objs, err := sim.ReadObjects(f, name)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, &diag.Error{Code: diag.Usage, Err: err}
		}
		if err := c.Load(objs); err != nil {
			return nil, &diag.Error{Code: diag.Usage, Subject: name, Err: err}
		}
	}
	c.Advance(time.Minute)
	return c, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// yes answers approve(), and no gate.
type yes struct{}

func (yes) Approve(context.Context, string, string, []string) (string, bool, error) {
	return "tester", true, nil
}

func (yes) Leave(context.Context, []gate.Finding) (string, bool, error) { return "tester", false, nil }
