//go:build e2e

package restart_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/engine"
	"rutter.dev/rutter/runtime/event"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/metrics"
)

// TestMain leaves out, unless -run says what is wanted, what needs no real Prometheus,
// which runs without the tag e2e.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.run").Value.String() == "" {
		if err := flag.Set("test.run", "^TestReal"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// prometheus is a real server that scrapes one gauge every second.
type prometheus struct {
	url    string
	gauge  atomic.Value // string
	client *metrics.Client
	kill   func()
}

// binary is Debian's prometheus, installed where it is missing.
func binary(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("prometheus"); err == nil {
		return path
	}
	for _, args := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", "prometheus"}} {
		if out, err := exec.Command("apt-get", args...).CombinedOutput(); err != nil {
			t.Fatalf("prometheus is not installed, and apt-get %s says: %v\n%s", args[0], err, out)
		}
	}
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func startPrometheus(t *testing.T, r *run) *prometheus {
	t.Helper()
	p := &prometheus{}
	p.gauge.Store("0.01")
	exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# TYPE error_rate gauge\nerror_rate{service=\"web\"} %s\n", p.gauge.Load())
	}))
	t.Cleanup(exporter.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: web\n  static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(exporter.URL, "http://"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := &strings.Builder{}
	cmd := exec.CommandContext(ctx, binary(t), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	p.kill = func() {
		if !stopped {
			stopped = true
			cancel()
			<-ended
		}
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	p.url = "http://" + address
	if p.client, err = metrics.New(metrics.Options{URL: p.url, Clock: r.sim.Clock()}); err != nil {
		t.Fatal(err)
	}
	return p
}

// show changes the gauge and returns once the server knows.
func (p *prometheus) show(t *testing.T, value string) {
	t.Helper()
	p.gauge.Store(value)
	last := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		resp, err := http.Get(p.url + "/api/v1/query?query=error_rate")
		if err != nil {
			last = err.Error()
			continue
		}
		b := make([]byte, 1<<12)
		n, _ := resp.Body.Read(b)
		_ = resp.Body.Close()
		if last = string(b[:n]); strings.Contains(last, `"`+value+`"`) {
			return
		}
	}
	t.Fatalf("prometheus does not say %s: %s", value, last)
}

// A real Prometheus that sees the service go bad once the canary is restarted
// stops the run within one interval; one that is gone stops it before anything
// is restarted.
func TestRealPrometheusStopsTheRun(t *testing.T) {
	const patient = `
def run(p):
    step("data plane", restart.outdated, soak = "10m")
`
	r := newRun(t, small, patient)
	p := startPrometheus(t, r)
	p.show(t, "0.01")
	most := 0.05
	r.metrics = p.client
	r.policy = &gate.Policy{Prometheus: &gate.Prometheus{URL: p.url, Interval: 20 * time.Second, Queries: []gate.HealthQuery{{Name: "errors", Query: `max by (service) (error_rate)`, Max: &most}}}}
	restarted := 0
	var bad time.Time
	r.on = func(e event.Event) {
		if d, ok := e.Body.(*event.EffectDone); ok && d.Class == effect.Restart {
			if restarted++; restarted == 1 {
				p.show(t, "0.07")
				bad = r.sim.Clock().Now()
			}
		}
	}
	err := engine.Run(context.Background(), context.Background(), r.options())
	refusedBy(t, err, gate.HealthKept)
	if late := r.sim.Clock().Now().Sub(bad); restarted != 1 || late > 20*time.Second {
		t.Errorf("%d workloads restarted, stopped %s after it went bad", restarted, late)
	}
	if !strings.Contains(err.Error(), `{service="web"} 0.07; at most 0.05 is allowed`) {
		t.Errorf("the refusal does not show what was seen: %v", err)
	}

	p.kill()
	r = newRun(t, small, patient)
	r.metrics, r.policy = p.client, &gate.Policy{Prometheus: &gate.Prometheus{URL: p.url, Queries: []gate.HealthQuery{{Name: "errors", Query: "error_rate", Max: &most}}}}
	err = engine.Run(context.Background(), context.Background(), r.options())
	if !refusedBy(t, err, gate.HealthKept).Forecast || !strings.Contains(err.Error(), "could not find out") {
		t.Errorf("without an answer: %v", err)
	}
}
