package sweep

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rutter.dev/rutter/runtime/diag"
)

// Case is one thing that goes wrong at one point, and what is done then.
type Case struct {
	Request int    // that goes wrong, or
	Watch   int    // that goes wrong, or
	Disk    int    // operation on the journal's disk before which the host dies
	Fault   string // of a request or watch; "kill", or "power1" to "power3" for a power cut
	Then    string // "resume", "rollback", or "again": resume, killed, resume
}

// String is the id of the case, "r40.timeout-after.resume".
func (c Case) String() string {
	switch {
	case c.Request > 0:
		return fmt.Sprintf("r%d.%s.%s", c.Request, c.Fault, c.Then)
	case c.Watch > 0:
		return fmt.Sprintf("w%d.%s.%s", c.Watch, c.Fault, c.Then)
	}
	return fmt.Sprintf("j%d.%s.%s", c.Disk, c.Fault, c.Then)
}

var caseID = regexp.MustCompile(`^([rwj])([0-9]+)\.([a-z0-9-]+)\.(resume|rollback|again)$`)

// ParseCase reads the id of a case.
func ParseCase(id string) (Case, error) {
	m := caseID.FindStringSubmatch(id)
	if m == nil {
		return Case{}, &diag.Error{Code: diag.Usage, Subject: "--case " + id, Problem: "is no case of a sweep", Expect: `an id such as "r40.timeout-after.resume"`}
	}
	n, err := strconv.Atoi(m[2])
	if err != nil || n == 0 {
		return Case{}, &diag.Error{Code: diag.Usage, Subject: "--case " + id, Problem: "has no point", Err: err}
	}
	c := Case{Fault: m[3], Then: m[4]}
	if m[1] == "j" {
		c.Disk = n
		if !slices.Contains(deaths, c.Fault) {
			return c, &diag.Error{Code: diag.Usage, Subject: "--case " + id, Problem: "no such death", Expect: fmt.Sprint(deaths)}
		}
		return c, nil
	}
	if m[1] == "w" {
		c.Watch = n
		if watchFaults[c.Fault] == nil {
			return c, &diag.Error{Code: diag.Usage, Subject: "--case " + id, Problem: "no such fault of a watch", Expect: fmt.Sprint(slices.Sorted(maps.Keys(watchFaults)))}
		}
		return c, nil
	}
	c.Request = n
	if faultOf(c.Fault) == nil {
		return c, &diag.Error{Code: diag.Usage, Subject: "--case " + id, Problem: "no such fault"}
	}
	return c, nil
}

func faultOf(name string) *fault {
	for _, f := range faults() {
		if f.name == name {
			return &f
		}
	}
	return nil
}

// deaths of a host: killed, with all that was written there for the next
// process, and power cuts, with more or less of what was not synced.
var deaths = []string{"kill", "power1", "power2", "power3"}

// point is a request of the reference.
type point struct {
	get    bool
	writes bool   // it changes something
	what   string // its method and address
}

// all are the cases of a reference, in the order of points.
func all(requests []point, watches, disk int) []Case {
	var out []Case
	for i := range disk {
		for _, death := range deaths {
			for _, then := range []string{"resume", "rollback", "again"} {
				out = append(out, Case{Disk: i + 1, Fault: death, Then: then})
			}
		}
	}
	for i, p := range requests {
		for _, f := range faults() {
			if !strikes(f, p) {
				continue
			}
			for _, then := range []string{"resume", "rollback"} {
				out = append(out, Case{Request: i + 1, Fault: f.name, Then: then})
			}
		}
	}
	for i := range watches {
		for _, f := range slices.Sorted(maps.Keys(watchFaults)) {
			out = append(out, Case{Watch: i + 1, Fault: f, Then: "resume"})
		}
	}
	return out
}

// strikes reports whether the fault can strike the request. A stream has no end
// to be cut off: Istio's informers, which ask for one, would wait for the rest
// of it, on real time, until their whole look at the cluster runs out of it.
func strikes(f fault, p point) bool {
	if f.name == "truncated" && strings.Contains(p.what, "watch=true") {
		return false
	}
	return !f.writes || !p.get && (p.writes || !f.after)
}

// sample picks n of the cases: of every point some, and the same for a seed.
func sample(cases []Case, n int, seed uint64) []Case {
	if n <= 0 || n >= len(cases) {
		return cases
	}
	r := rand.New(rand.NewPCG(seed, 1)) // #nosec G404 -- the same every time is the point
	out := make([]Case, 0, n)
	for i := range n { // one of each of n stretches of equal length
		from, to := i*len(cases)/n, (i+1)*len(cases)/n
		out = append(out, cases[from+r.IntN(to-from)])
	}
	return out
}
