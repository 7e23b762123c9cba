//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/metrics"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/tests/e2e/child"
	"rutter.dev/rutter/tests/e2e/plane"
)

const (
	// lookEvery is how often the policy has Prometheus asked.
	lookEvery = 5 * time.Second
	// ending is what a run on a busy machine takes from its last look to its end.
	ending = 4 * time.Second
	// failing is the share of requests that fail; the policy bears a tenth.
	failing = `sum(rate(requests_total{code="500"}[4s])) / sum(rate(requests_total[4s]))`
)

// A canary that hurts its users stops the run: their metrics are scraped by a real
// Prometheus, which the policy has asked while the canary is watched. The run ends
// within one interval of Prometheus knowing, with the canary restarted and nothing
// else; when the users are well again it is resumed to its end.
func TestRealPrometheus(t *testing.T) {
	binary := prometheusHere(t)
	parallel(t, 60*time.Second)
	p := startPlane(t, plane.Options{AuditLevel: "Request", FirstPort: besides(24)})
	bringMesh(t, p, mesh.Spec{Workloads: 6, Namespaces: 2, Seed: 3})
	users := serveUsers(t)
	prom := startPrometheus(t, binary, users.URL)
	prom.until("the users are well", func(share float64) bool { return share == 0 })
	before, mark := workloads(t, p), auditMark(t, p)
	state, policy := t.TempDir(), filepath.Join(t.TempDir(), "rutter.yaml")
	if err := os.WriteFile(policy, fmt.Appendf(nil, `
prometheus:
  url: %s
  interval: %s
  queries:
  - {name: errors, query: '%s', max: 0.1}
`, prom.url, lookEvery, failing), 0o600); err != nil {
		t.Fatal(err)
	}

	s := follow(t, rutterCommand(t.Context(), state, p.Kubeconfig(), "run", "runbooks/istio/in-place.star",
		"--set", "to=1.31.0", "--set", "soak=20s", "--yes", "-o", "json", "--policy", policy))
	s.until("the roll-out", started("data plane"))
	s.until("the canary is restarted", intent(1))
	users.hurt(true)
	prom.until("the users are hurt", func(share float64) bool { return share > 0.1 })
	knows := time.Now()
	r := s.end()

	if took := time.Since(knows); took > lookEvery+ending {
		t.Errorf("the run went on for %s after Prometheus knew, want at most %s and %s to end", took, lookEvery, ending)
	}
	t.Logf("ended %s after Prometheus knew", time.Since(knows).Round(time.Second/10))
	r.want(t, 3).says(t, "RUT014", "the services are not well", "at most 0.1 is allowed")
	if n := restarts(made(changes(t, p, mark))); n != 1 {
		t.Errorf("%d workloads were restarted, want the canary alone", n)
	}

	users.hurt(false)
	prom.until("the users are well again", func(share float64) bool { return share == 0 })
	rutter(t, state, p.Kubeconfig(), "resume", "--yes", "--policy", policy).want(t, 0)
	after := workloads(t, p)
	for name, w := range before {
		if w.sidecar() {
			restartedOnce(t, w, after[name])
		}
	}
}

// prometheusHere is Debian's Prometheus, which make put beside the tests' other
// programs (.ci/prometheus), or the machine's own.
func prometheusHere(t *testing.T) string {
	t.Helper()
	at := filepath.Join(built.root, "bin", "e2e", "prometheus")
	if _, err := os.Stat(at); err == nil {
		return at
	}
	own, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("no Prometheus is here, and Debian's can't be had (.ci/prometheus bin/e2e)")
	}
	return own
}

// users answer as a service's sidecar does that is asked for its metrics.
type users struct {
	*httptest.Server
	mu        sync.Mutex
	hurting   bool
	good, bad int
}

// serveUsers serves the metrics of users whose requests all succeed.
func serveUsers(t *testing.T) *users {
	t.Helper()
	u := &users{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.good += 10
		if u.hurting {
			u.bad += 10
		}
		_, _ = fmt.Fprintf(w, "# TYPE requests_total counter\nrequests_total{code=\"200\"} %d\nrequests_total{code=\"500\"} %d\n", u.good, u.bad) // a scrape that fails is missing
	}))
	t.Cleanup(u.Close)
	return u
}

// hurt lets every second request fail from now on, or none.
func (u *users) hurt(yes bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hurting = yes
}

// prometheus is a real server that scrapes users every second.
type prometheus struct {
	t      *testing.T
	url    string
	client *metrics.Client
}

func startPrometheus(t *testing.T, binary, target string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	config := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: users\n  static_configs: [{targets: ['%s']}]\n", target[len("http://"):])
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at)
	cmd.Stdout, cmd.Stderr = log, log
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (&child.Starter{}).Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it keeps nothing that is wanted
		_ = cmd.Wait()
		if said, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("Prometheus said (%v)\n%s", err, said)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	client, err := metrics.New(metrics.Options{URL: "http://" + at, Clock: env.SystemClock{}})
	if err != nil {
		t.Fatal(err)
	}
	return &prometheus{t: t, url: "http://" + at, client: client}
}

// until waits until Prometheus itself says so of the share of requests that fail.
func (p *prometheus) until(what string, holds func(share float64) bool) {
	p.t.Helper()
	until(p.t, what, func(ctx context.Context) (bool, error) {
		samples, err := p.client.Query(ctx, failing)
		if err != nil || len(samples) != 1 {
			return false, nil //nolint:nilerr // it starts, or has scraped too little to say
		}
		return samples[0].Known() && holds(samples[0].Value), nil
	})
}
