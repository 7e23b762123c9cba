package testrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.starlark.net/starlark"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/interp"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/value"
)

// test is the value t of one test. It is used by one goroutine.
type test struct {
	ctx      context.Context
	suite    *suite
	file     *testFile
	name     string
	output   []string
	written  []string
	clusters []*simulated
	runs     []*outcome
}

func newTest(ctx context.Context, s *suite, f *testFile, name string) *test {
	return &test{ctx: ctx, suite: s, file: f, name: name}
}

// close lets go of what the test holds.
func (t *test) close() {
	for _, r := range t.runs {
		r.close()
	}
	for _, c := range t.clusters {
		_ = c.sim.Close() // in memory: nothing can be lost
	}
}

// String implements starlark.Value.
func (t *test) String() string { return "<test " + t.name + ">" }

// Type implements starlark.Value.
func (t *test) Type() string { return "test" }

// Freeze implements starlark.Value.
func (t *test) Freeze() {}

// Truth implements starlark.Value.
func (t *test) Truth() starlark.Bool { return true }

// Hash implements starlark.Value.
func (t *test) Hash() (uint32, error) { return 0, errors.New("unhashable type: test") }

// AttrNames implements starlark.HasAttrs.
func (t *test) AttrNames() []string { return testMethods().names }

// Attr implements starlark.HasAttrs.
func (t *test) Attr(name string) (starlark.Value, error) { return testMethods().bind(t, "t", name) }

type clusterArgs struct {
	Mesh       *string        `star:"mesh" doc:"Generated mesh to start from, as --sim mesh takes it: \"istio=1.30.3,workloads=12,seed=1\"; \"\" for the default one."`
	Objects    starlark.Value `star:"objects" doc:"Further objects: YAML text, a file or folder relative to the test file, an object, or a list of them."`
	Kubernetes string         `star:"kubernetes" doc:"Version of the simulated API server, \"v1.34.0\"."`
}

type runArgs struct {
	Runbook string         `star:"runbook,positional" doc:"File of the runbook, relative to the test file, or from the root with // in front."`
	Cluster *simulated     `star:"cluster,required" doc:"Cluster from t.cluster() to run it on."`
	Params  map[string]any `star:"params" doc:"Parameters by name."`
	Approve starlark.Value `star:"approve" doc:"Answer to approve(): True (the default), False, the name of who approves, a list of names, or a function that is called with the message, may change the cluster as the person who is asked would, and returns one of these."`
	Leave   string         `star:"leave" doc:"Name of the operator who gives leave where a gate asks; nobody without."`
	Policy  starlark.Value `star:"policy" doc:"The organization's policy: from t.policy(), or a dict as rutter.yaml holds it."`
	KillAt  int            `star:"kill_at" doc:"Kill the host right after the so many-th write or sync of the journal; 0 lets it live."`
}

type resumeArgs struct {
	Run     *outcome       `star:"run,positional" doc:"Result of t.run() or t.resume() that is not done."`
	Approve starlark.Value `star:"approve" doc:"Answer to approve(), as for t.run."`
	Leave   string         `star:"leave" doc:"As for t.run."`
	Policy  starlark.Value `star:"policy" doc:"Another policy than before."`
	KillAt  int            `star:"kill_at" doc:"As for t.run."`
}

type equalArgs struct {
	Got  starlark.Value `star:"got,positional" doc:"What there is."`
	Want starlark.Value `star:"want,positional" doc:"What should be."`
	Msg  string         `star:"msg,positional,optional" doc:"What it is about."`
}

type trueArgs struct {
	Cond starlark.Value `star:"cond,positional" doc:"What should be true."`
	Msg  string         `star:"msg,positional,optional" doc:"What it is about."`
}

type containsArgs struct {
	In   starlark.Value `star:"text,positional" doc:"Text, list or dict."`
	Part starlark.Value `star:"part,positional" doc:"What it should contain."`
	Msg  string         `star:"msg,positional,optional" doc:"What it is about."`
}

type failsArgs struct {
	Fn     starlark.Callable `star:"fn,positional" doc:"Function that should fail."`
	Args   starlark.Tuple    `star:"*args" doc:"Its arguments."`
	Match  string            `star:"match" doc:"Regular expression that the error should match."`
	Kwargs []starlark.Tuple  `star:"**kwargs" doc:"Its keyword arguments."`
}

type failArgs struct {
	Msg string `star:"msg,positional" doc:"Why the test fails."`
}

type goldenArgs struct {
	Got  starlark.Value `star:"got,positional" doc:"Result of a run, whose transcript is meant, or text."`
	Name string         `star:"name,required" doc:"Name of the golden file, without folder and ending."`
}

func makeTestMethods() *methods {
	return collect(
		declare("t.cluster", "cluster", "Makes a simulated cluster, in memory and on virtual time, for this test alone.",
			`c = t.cluster(mesh = "istio=1.30.3,workloads=12,seed=1")`, (*test).newCluster),
		declare("t.run", "result", "Runs a runbook on a cluster and returns how it went; a run that fails does not fail the test.",
			`r = t.run("in-place.star", cluster = c, params = {"to": "1.31.0"})`, (*test).run),
		declare("t.resume", "result", "Resumes the run of a result from its journal, as rutter resume does.",
			`r = t.resume(r, approve = True)`, (*test).resume),
		declare("t.policy", "policy", "Reads a policy file with its rules, as a run does that finds it; path relative to the test file, or from the root with // in front.",
			`p = t.policy("//rutter.yaml")`, (*test).policy),
		declare("t.golden", "None", "Compares a transcript (or text) with testdata/FILE/NAME.golden; rutter test --update rewrites it.",
			`t.golden(r, name = "upgrade")`, (*test).golden),
		declare("t.equal", "None", "Fails the test unless two values are equal.", `t.equal(r.status, "done")`, (*test).equal),
		declare("t.true", "None", "Fails the test unless the condition is true.", `t.true(r.ok, "the run is done")`, (*test).isTrue),
		declare("t.contains", "None", "Fails the test unless a text, list or dict contains a part.", `t.contains(r.transcript, "control plane")`, (*test).contains),
		declare("t.fails", "string", "Fails the test unless calling a function fails, and returns the error's text.",
			`t.fails(lambda: c.get("deploy"), match = "name")`, (*test).fails),
		declare("t.fail", "None", "Fails the test.", `t.fail("not reached")`, func(_ *test, _ *starlark.Thread, a *failArgs) (starlark.Value, error) {
			return nil, &assertion{message: a.Msg}
		}),
	)
}

func (t *test) newCluster(th *starlark.Thread, a *clusterArgs) (starlark.Value, error) {
	spec := SimSpec{Kubernetes: a.Kubernetes}
	if a.Mesh != nil {
		spec.Mesh = strings.TrimSuffix("mesh,"+*a.Mesh, ",")
	}
	s, err := t.suite.sims.get(ctxOf(th), spec)
	if err != nil {
		return nil, fmt.Errorf("t.cluster: %w", err)
	}
	objects, err := t.objects(a.Objects)
	if err != nil {
		return nil, fmt.Errorf("t.cluster: objects: %w", err)
	}
	if err := s.Load(objects); err != nil {
		return nil, fmt.Errorf("t.cluster: objects: %w", err)
	}
	client, err := admin(s)
	if err != nil {
		return nil, fmt.Errorf("t.cluster: %w", err)
	}
	c := &simulated{t: t, sim: s, admin: client}
	t.clusters = append(t.clusters, c)
	return c, nil
}

// objects reads what an argument gives as objects.
func (t *test) objects(v starlark.Value) ([]*unstructured.Unstructured, error) {
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return nil, nil
	case starlark.String:
		text := string(v)
		if strings.Contains(text, "\n") || strings.Contains(text, ": ") {
			return sim.ReadObjects(strings.NewReader(text), "YAML text")
		}
		return t.readObjects(text)
	case starlark.IterableMapping:
		x, err := value.ToGo(v)
		if err != nil {
			return nil, err
		}
		m, ok := x.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("got %s, want an object", v.Type())
		}
		return []*unstructured.Unstructured{(&unstructured.Unstructured{Object: m}).DeepCopy()}, nil
	case starlark.Iterable:
		var out []*unstructured.Unstructured
		for e := range starlark.Elements(v) {
			objs, err := t.objects(e)
			if err != nil {
				return nil, err
			}
			out = append(out, objs...)
		}
		return out, nil
	}
	return nil, fmt.Errorf("got %s, want YAML text, a file, an object or a list of objects", v.Type())
}

// readObjects reads a file or a folder within the root. A test is source like a
// runbook, and reads nothing else; nor through a link.
func (t *test) readObjects(name string) (out []*unstructured.Unstructured, err error) {
	rel, err := filepath.Rel(t.file.root, t.beside(name))
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.file.root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return sim.ReadFiles(env.RootFS(root), filepath.ToSlash(rel))
}

// beside is the absolute path of a name relative to the test file, or to the
// root after //.
func (t *test) beside(name string) string {
	if rest, ok := strings.CutPrefix(name, "//"); ok {
		return filepath.Join(t.file.root, filepath.FromSlash(rest))
	}
	return filepath.Join(filepath.Dir(t.file.path), filepath.FromSlash(name))
}

func (t *test) fails(th *starlark.Thread, a *failsArgs) (starlark.Value, error) {
	_, err := builtin.CallScript(th, a.Fn, a.Args, a.Kwargs)
	if stopped := interp.Stopped(th); stopped != nil {
		return nil, stopped
	}
	if err == nil {
		return nil, &assertion{message: a.Fn.Name() + " did not fail"}
	}
	text := errorText(err)
	if a.Match != "" {
		re, rerr := regexp.Compile(a.Match)
		if rerr != nil {
			return nil, fmt.Errorf("t.fails: match: %w", rerr)
		}
		if !re.MatchString(text) {
			return nil, &assertion{message: fmt.Sprintf("%s failed, but its error does not match %q", a.Fn.Name(), a.Match), detail: text}
		}
	}
	return starlark.String(text), nil
}

// errorText is an error without the stack around it.
func errorText(err error) string {
	for {
		e, ok := err.(*starlark.EvalError)
		if !ok || e.Unwrap() == nil {
			return err.Error()
		}
		err = e.Unwrap()
	}
}
