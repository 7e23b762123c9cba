package conformance

import (
	"os"
	"strings"
	"testing"

	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/event"
)

// setting is what an example needs around it. A builtin without one is run on
// its own, on a mesh that is yet to be upgraded.
type setting struct {
	mesh     meshState
	preamble string // statements before the example, inside run(p)
	// more are statements after the example, for effects that the builtin
	// declares and its example does not make.
	more string
	// whole: the example is a runbook, not a statement in one.
	whole bool
	// upgrade: the run is from the installed version to the linked one, so
	// that the gates on upgrades have their say.
	upgrade bool
}

const (
	saved    = `saved = step("save", backup.create)` + "\n"
	rendered = `manifest = step("render", istioctl.manifest, version = "` + to + `", set = {"meshConfig.accessLogFile": "/dev/stdout"})` + "\n"
	reviewed = `step("precheck", istioctl.precheck, version = "` + to + `")` + "\n" +
		`review = step("show", diff.live, manifest, prune = True, adopt = ["istio-operator"])` + "\n" +
		`approve("apply it", covers = [review])` + "\n"
)

// settings by the builtin's name.
var settings = map[string]setting{
	"runbook": {whole: true},

	"kube.apply":  {preamble: saved + rendered + reviewed, upgrade: true},
	"kube.patch":  {preamble: saved},
	"kube.label":  {preamble: saved},
	"kube.delete": {preamble: saved},
	"kube.evict":  {mesh: upgraded},

	"backup.verify": {preamble: saved},
	"backup.list":   {preamble: saved},
	"backup.restore": {preamble: saved + `
def spoil():
    kube.patch("cm/istio", {"data": {"mesh": "accessLogFile: /dev/null"}}, namespace = "istio-system")
    kube.patch("svc/istiod", {"metadata": {"labels": {"spoiled": "true"}}}, namespace = "istio-system")
    kube.delete("sa/istiod", namespace = "istio-system")
    kube.apply(new)

new = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "new", "namespace": "shop"}, "spec": {"egress": [{"hosts": ["./*"]}]}}
step("show", diff.live, new)
approve("spoil it")
step("spoil", spoil)
`},

	"istioctl.install": {preamble: saved + rendered + reviewed, upgrade: true},
	"istioctl.set_tag": {
		preamble: saved + `step("show", istioctl.diff_set_tag, "stable", revision = "default")
step("show default", istioctl.diff_set_tag, "default", revision = "default", adopt = ["istio-operator"])
approve("tags")` + "\n",
		more: `step("default", istioctl.set_tag, "default", revision = "default", adopt = ["istio-operator"])` + "\n",
	},
	"istioctl.diff_remove_tag": {preamble: saved + stale},
	"istioctl.remove_tag":      {preamble: saved + stale + `step("show", istioctl.diff_remove_tag, "stale")` + "\n" + `approve("remove it")` + "\n"},
	"istioctl.diff_uninstall":  {mesh: beside},
	"istioctl.uninstall": {
		mesh:     beside,
		preamble: saved + `step("show", istioctl.diff_uninstall, revision = "old", gateways = True)` + "\n" + `approve("remove it")` + "\n",
	},

	"diff.backup":    {preamble: saved},
	"diff.live":      {preamble: rendered},
	"diff.manifests": {preamble: rendered + `old, new = step("old", istioctl.manifest), manifest` + "\n"},

	"restart.soak":     {mesh: upgraded, preamble: saved},
	"restart.outdated": {mesh: upgraded, preamble: saved},
	"restart.workloads": {
		mesh: upgraded, preamble: saved,
		more: `step("istiod", restart.workloads, ["deploy/istiod"], namespace = "istio-system")` + "\n" +
			`step("on delete", restart.workloads, ["sts/api"], namespace = "payments")`,
	},
	"restart.control_plane": {
		mesh: retuned, preamble: saved + rendered,
		more: `step("gateways", restart.control_plane, manifest)`,
	},
}

// stale makes a revision tag that nothing uses.
const stale = `step("show the tag", istioctl.diff_set_tag, "stale", revision = "default")
approve("make it")
step("make the tag", istioctl.set_tag, "stale", revision = "default")
`

// marker is logged between the preamble and the example.
const marker = "the example begins"

func settingOf(s *builtin.Spec) setting {
	st := settings[s.Name]
	if st.mesh == "" {
		st.mesh = installed
	}
	return st
}

// source is the runbook around an example.
func (st setting) source(s *builtin.Spec) string {
	if st.whole {
		return s.Example + "\n"
	}
	head := "runbook(name = \"example\", version = \"1.0.0\", params = {\"to\": param.string(default = \"\")})\n"
	if st.upgrade {
		head = "runbook(name = \"example\", version = \"1.0.0\", upgrades = \"1.30.x -> 1.31.x\", params = {\"to\": param.string()})\n"
	}
	body := st.preamble + "\nlog(\"" + marker + "\")\n" + s.Example + "\n" + st.more + "\n"
	return head + "\ndef run(p):\n    " + strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n    ") + "\n"
}

func TestDocumented(t *testing.T) {
	for _, s := range modules.Specs(laboratory(t).renderer) {
		t.Run(s.Name, func(t *testing.T) {
			summary := s.Summary()
			if !strings.HasSuffix(summary, ".") {
				t.Errorf("Doc begins with %q, want a first sentence that stands alone", summary)
			}
			if s.Example == "" || s.Returns == "" {
				t.Errorf("Example %q, Returns %q; want both", s.Example, s.Returns)
			}
			for _, a := range s.Args {
				if strings.TrimSpace(a.Doc) == "" || a.Type == "" {
					t.Errorf("argument %s: type %q, doc %q; want both", a.Name, a.Type, a.Doc)
				}
			}
			sig := s.Signature()
			if !strings.HasPrefix(sig, s.Name+"(") || !strings.HasSuffix(sig, ")") {
				t.Errorf("signature %q", sig)
			}
			stub := s.Stub()
			for _, want := range []string{"def " + s.Short() + "(", summary, "Returns:", "Example:"} {
				if !strings.Contains(stub, want) {
					t.Errorf("the stub lacks %q:\n%s", want, stub)
				}
			}
			for _, a := range s.Args {
				if !strings.Contains(stub, a.Name+" ("+a.Type+"): ") {
					t.Errorf("the stub lacks argument %s", a.Name)
				}
			}
			if s.Class == builtin.Write && len(s.Effects) == 0 {
				t.Error("a write builtin without classes of effects")
			}
		})
	}
}

// Every module of the language is walked: a new folder in builtins must be
// added to cmd/modules, which the command line and these tests share.
func TestEveryModuleIsWalked(t *testing.T) {
	walked := map[string]bool{"core": true}
	for _, s := range modules.Specs(laboratory(t).renderer) {
		walked[s.Module()] = true
	}
	dirs, err := os.ReadDir("../../builtins")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if d.IsDir() && !walked[d.Name()] {
			t.Errorf("builtins/%s: no declaration of it is walked; add its Specs() to cmd/modules", d.Name())
		}
	}
	for name := range settings {
		if laboratory(t).host.Builtins.Lookup(name) == nil {
			t.Errorf("settings: there is no builtin %s", name)
		}
	}
}

func TestExamplesRun(t *testing.T) {
	l := laboratory(t)
	for _, s := range modules.Specs(l.renderer) {
		if s.Class == builtin.Write {
			continue // TestWrites runs those, and more
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			st := settingOf(s)
			w := l.world(st.mesh)
			if err := w.run(st.source(s)); err != nil {
				t.Fatalf("%v\nin:\n%s\n(what an example needs around it goes into settings in examples_test.go)", err, st.source(s))
			}
			if !w.ended() {
				t.Error("the run did not end")
			}
		})
	}
}

func (w *world) ended() bool {
	for _, e := range w.events {
		if r, ok := e.Body.(*event.RunEnded); ok && r.Exit == 0 {
			return true
		}
	}
	return false
}
