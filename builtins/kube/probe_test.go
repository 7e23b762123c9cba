package kube

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/sim"
)

// scripted answers one probe after the other; the last answer stays.
type scripted struct {
	codes  []int // 0 is nobody
	header string
	asked  []string
}

// Connect implements sim.Connector.
func (s *scripted) Connect(w http.ResponseWriter, r *http.Request, to sim.Connection) {
	s.asked = append(s.asked, r.Host+to.Path)
	code := s.codes[0]
	if len(s.codes) > 1 {
		s.codes = s.codes[1:]
	}
	if s.header != "" {
		w.Header().Set(s.header, "true")
	}
	if code == 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","code":503,"message":"error trying to reach service: connection refused"}`))
		return
	}
	w.WriteHeader(code)
	_, _ = w.Write([]byte("up 1\nother 2\nupper 3\r\n"))
}

func TestProbe(t *testing.T) {
	ints := func(codes ...int) starlark.Value {
		var out []starlark.Value
		for _, c := range codes {
			out = append(out, starlark.MakeInt(c))
		}
		return starlark.NewList(out)
	}
	minute := kw("patience", str("1m"))
	for name, tc := range map[string]struct {
		codes  []int
		header string
		args   []starlark.Tuple
		want   probed
		tries  int
		passed time.Duration
	}{
		"good":                   {codes: []int{200}, want: probed{OK: true, Status: 200}, tries: 1},
		"redirected":             {codes: []int{301}, want: probed{OK: true, Status: 301}, tries: 1},
		"an error":               {codes: []int{502}, want: probed{Status: 502, Problem: "HTTP 502, want less than 500"}, tries: 1},
		"another":                {codes: []int{404}, args: []starlark.Tuple{kw("expect", ints(200, 302))}, want: probed{Status: 404, Problem: "HTTP 404, want 200 302"}, tries: 1},
		"an error that is meant": {codes: []int{503}, args: []starlark.Tuple{kw("expect", ints(503))}, want: probed{OK: true, Status: 503}, tries: 1},
		"nobody":                 {codes: []int{0}, want: probed{Problem: "nobody answers: error trying to reach service: connection refused"}, tries: 1},
		"good in time":           {codes: []int{0, 503, 200}, args: []starlark.Tuple{minute}, want: probed{OK: true, Status: 200}, tries: 3, passed: 10 * time.Second},
		"not in time":            {codes: []int{503}, args: []starlark.Tuple{minute}, want: probed{Status: 503, Problem: "HTTP 503, want less than 500"}, tries: 12, passed: 55 * time.Second},
		"assumed":                {codes: []int{404}, header: cluster.HeaderAssumed, args: []starlark.Tuple{kw("expect", ints(302))}, want: probed{OK: true, Status: 302}, tries: 1},
		"assumed not to fail":    {codes: []int{503}, header: cluster.HeaderAssumed, want: probed{OK: true, Status: 200}, tries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b, s := newBench(t), &scripted{codes: tc.codes, header: tc.header}
			b.Sim.OnConnect(s)
			b.Sim.Advance(2 * time.Minute)
			begun := b.Sim.Clock().Now()
			args := append([]starlark.Tuple{kw("namespace", str("istio-system")), kw("port", starlark.MakeInt(15012)), kw("host", str("a.example")), kw("path", str("/x"))}, tc.args...)
			got := b.Must("kube.probe", starlark.Tuple{str("svc/istiod")}, args...).(*probed)
			if got.OK != tc.want.OK || got.Status != tc.want.Status || got.Problem != tc.want.Problem || len(got.Lines) != 0 {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if len(s.asked) != tc.tries || s.asked[0] != "a.example/x" || b.Sim.Clock().Now().Sub(begun) != tc.passed {
				t.Errorf("asked %q in %s", s.asked, b.Sim.Clock().Now().Sub(begun))
			}
		})
	}
}

func TestProbeKeepsTheLinesWanted(t *testing.T) {
	b := newBench(t)
	b.Sim.OnConnect(&scripted{codes: []int{200}})
	b.Sim.Advance(2 * time.Minute)
	ns, port := kw("namespace", str("istio-system")), kw("port", starlark.MakeInt(15012))
	got := b.Must("kube.probe", starlark.Tuple{str("svc/istiod")}, ns, port, kw("lines", starlark.NewList([]starlark.Value{str("up")}))).(*probed)
	if strings.Join(got.Lines, "|") != "up 1|upper 3" {
		t.Errorf("got %q", got.Lines)
	}
	if _, err := linesOf([]byte(strings.Repeat("up 1\n", 60_000)), []string{"up"}); err == nil || !strings.Contains(err.Error(), "200 KiB") {
		t.Errorf("got %v", err)
	}
	if _, err := b.Call("kube.probe", starlark.Tuple{str("svc/none")}, ns, port); !errors.Is(err, cluster.ErrNotFound) {
		t.Errorf("no such Service: got %v", err)
	}
	var usage *diag.Error
	if _, err := b.Call("kube.probe", starlark.Tuple{str("deploy/istiod")}, ns, port); !errors.As(err, &usage) || usage.Code != diag.Usage {
		t.Errorf("a Deployment: got %v", err)
	}
}
