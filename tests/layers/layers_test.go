// Package layers holds the house to its plan: imports point downward only
// (DESIGN §5, ARCHITECTURE.md).
package layers

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

const module = "rutter.dev/rutter/"

// order lists the packages from the bottom up. A package may import those of
// lines above its own; packages on one line don't know each other.
var order = [][]string{
	{"runtime/env", "runtime/diag", "runtime/plain", "runtime/quota", "stdlib", "runbooks"},
	{"runtime/lockfile", "runtime/catalogue"},
	{"runtime/cluster"},
	{"runtime/knowledge", "runtime/signature"},
	{"runtime/sim", "runtime/metrics", "runtime/mesh", "runtime/toolchain", "runtime/seal", "runtime/lock", "runtime/access"},
	{"runtime/sim/controllers", "runtime/twin"},
	{"runtime/sim/mesh"},
	{"runtime/effect"},
	{"runtime/gate"},
	{"runtime/event"},
	{"runtime/value", "runtime/journal"},
	{"runtime/builtin"},
	{"runtime/manifest"},
	{"runtime/archive"},
	{"runtime/loader"},
	{"runtime/deps"},
	{"runtime/interp"},
	{"runtime/policy"},
	{"builtins/istioctl/lib"},
	{"builtins/core", "builtins/kube", "builtins/istioctl", "builtins/backup", "builtins/diff", "builtins/restart"},
	{"runtime/engine"},
	{"runtime/host"},
	{"runtime/tool/testrun", "runtime/tool/sweep", "runtime/tool/fix", "runtime/plan"},
	{"runtime/review", "runtime/impact"},
	{"cmd/cli/view", "cmd/modules"},
	{"cmd/cli"},
	{"cmd/rutter"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// level is the line of order that holds the package or, for a package inside
// another's folder, that of the longest prefix.
func level(path string) int {
	best, at := "", -1
	for i, line := range order {
		for _, p := range line {
			if (path == p || strings.HasPrefix(path, p+"/")) && len(p) > len(best) {
				best, at = p, i
			}
		}
	}
	return at
}

func house(path string) string {
	best := ""
	for _, line := range order {
		for _, p := range line {
			if (path == p || strings.HasPrefix(path, p+"/")) && len(p) > len(best) {
				best = p
			}
		}
	}
	return best
}

func TestImportsPointDownward(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(path, "tests/") || len(p.GoFiles) == 0 {
			continue
		}
		at := level(path)
		if at < 0 {
			t.Errorf("%s has no place in the house: add it to the order in this test and to ARCHITECTURE.md", path)
			continue
		}
		for _, imp := range p.Imports {
			to, ok := strings.CutPrefix(imp, module)
			if !ok || house(to) == house(path) {
				continue
			}
			if level(to) >= at {
				t.Errorf("%s imports %s, which is not below it", path, to)
			}
		}
	}
}

// Libraries that only one door may use.
func TestDoors(t *testing.T) {
	doors := map[string][]string{
		"istio.io/istio/": {"builtins/istioctl"},
		"k8s.io/client-go/": {
			"runtime/cluster", "runtime/sim", "builtins/istioctl/lib", // the door, the server's own schemas, Istio's client
		},
		"github.com/spf13/cobra": {"cmd/cli", "builtins/istioctl/lib"}, // the command line, and istioctl's own commands
	}
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(path, "tests/") {
			continue
		}
		for _, imp := range p.Imports {
			for lib, allowed := range doors {
				if !strings.HasPrefix(imp, lib) {
					continue
				}
				ok := false
				for _, a := range allowed {
					ok = ok || path == a || strings.HasPrefix(path, a+"/")
				}
				if !ok {
					t.Errorf("%s imports %s; only %s may", path, imp, strings.Join(allowed, ", "))
				}
			}
		}
	}
}

func TestNothingInTheTopFolders(t *testing.T) {
	for _, p := range packages(t) {
		switch strings.TrimPrefix(p.ImportPath, module) {
		case "runtime", "builtins", "cmd", "tests", strings.TrimSuffix(module, "/"):
			if len(p.GoFiles) > 0 {
				t.Errorf("%s has Go files; they belong in a package below it", p.ImportPath)
			}
		}
	}
}
