package kube

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
)

type probeArgs struct {
	Ref       starlark.Value `star:"ref,positional" doc:"pod or Service: \"svc/istio-ingressgateway\""`
	Namespace string         `star:"namespace" doc:"its namespace"`
	Port      int            `star:"port,required" doc:"port of the pod or Service"`
	Path      string         `star:"path" default:"/" doc:"path that is asked for, with a query or without"`
	Host      string         `star:"host" doc:"Host header: the host whose routes of a gateway are meant"`
	Expect    []int          `star:"expect" doc:"HTTP statuses that are good; without it all below 500 are"`
	Patience  time.Duration  `star:"patience" default:"0s" doc:"how long it is asked again, every five seconds, until the answer is good"`
	Lines     []string       `star:"lines" doc:"beginnings of the lines of the answer's body that are given back; the rest is not kept"`
}

// probed is the value of kube.probe.
type probed struct {
	OK      bool     `json:"ok"`
	Status  int      `json:"status"`  // 0 where nobody answered
	Problem string   `json:"problem"` // "" where ok
	Lines   []string `json:"lines"`
}

// Limits of a probe: how often it is sent, and how much of an answer is given
// to the runbook, which the journal keeps.
const (
	probeEvery   = 5 * time.Second
	probeKeeps   = 200 << 10 // bytes
	firstUnclean = 500       // the status from which on an answer is not good by itself
)

func probeSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[probeArgs]{
		Name: "kube.probe",
		Doc: "Has the API server send a GET to what listens in a pod or behind a Service, and tells what was answered.\n" +
			"It needs the right to get pods/proxy or services/proxy. The request is plain HTTP: a port that speaks TLS can't\n" +
			"be asked, as the API server would name no host to it. In a plan nothing is sent: simulated proxies answer, and what\n" +
			"a gateway serves is assumed to be as expected.",
		Example: `kube.probe("svc/istiod", namespace = "istio-system", port = 15014, path = "/metrics", lines = ["pilot_xds"]).lines`,
		Returns: "struct(ok, status, problem, lines)",
		Do: func(c *builtin.Call, a *probeArgs) (any, error) {
			ref, err := resolve(c.Ctx, c.Reader, a.Ref, a.Namespace)
			if err != nil {
				return nil, err
			}
			if ref.Group != "" || ref.Kind != "Pod" && ref.Kind != "Service" {
				return nil, diag.Usagef(ref.String(), "is not probed, want a pod or a Service")
			}
			return probe(c, a, cluster.Probe{Ref: ref, Port: a.Port, Path: a.Path, Host: a.Host})
		},
	})
}

// probe asks until the answer is good or patience is over.
func probe(c *builtin.Call, a *probeArgs, p cluster.Probe) (*probed, error) {
	until := c.Env.Clock.Now().Add(a.Patience)
	for {
		out, err := probeOnce(c, a, p)
		if err != nil || out.OK || !c.Env.Clock.Now().Add(probeEvery).Before(until) {
			return out, err
		}
		c.Progress(0, 1, p.String()+": "+out.Problem)
		if err := c.Env.Clock.Sleep(c.Ctx, probeEvery); err != nil {
			return nil, err
		}
	}
}

func probeOnce(c *builtin.Call, a *probeArgs, p cluster.Probe) (*probed, error) {
	ans, err := c.Reader.Probe(c.Ctx, p)
	var re *cluster.RequestError
	if errors.As(err, &re) && re.Code >= firstUnclean {
		return &probed{Problem: "nobody answers: " + re.Message, Lines: []string{}}, nil
	}
	if err != nil {
		return nil, err
	}
	out := &probed{Status: ans.Status, OK: ans.Status < firstUnclean}
	want := "less than 500"
	if len(a.Expect) > 0 {
		out.OK = slices.Contains(a.Expect, ans.Status)
		want = strings.Trim(fmt.Sprint(a.Expect), "[]")
	}
	if !out.OK && ans.Assumed { // a rehearsal can't know, and says so among its assumptions
		out.OK, out.Status = true, http.StatusOK
		if len(a.Expect) > 0 {
			out.Status = a.Expect[0]
		}
	}
	if !out.OK {
		out.Problem = fmt.Sprintf("HTTP %d, want %s", ans.Status, want)
	}
	out.Lines, err = linesOf(ans.Body, a.Lines)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return out, nil
}

// linesOf are the lines that begin as wanted.
func linesOf(body []byte, wanted []string) ([]string, error) {
	out, size := []string{}, 0
	if len(wanted) == 0 {
		return out, nil
	}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimRight(line, "\r\n")
		if !slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(line, w) }) {
			continue
		}
		if size += len(line); size > probeKeeps {
			return nil, fmt.Errorf("the lines wanted have more than %d KiB: name longer beginnings", probeKeeps>>10)
		}
		out = append(out, line)
	}
	return out, nil
}
