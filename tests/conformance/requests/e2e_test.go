//go:build e2e

package requests

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"rutter.dev/rutter/tests/e2e/plane"
)

var record = flag.Bool("record", false, "write the real server's answers to testdata")

// TestMain lets more cases run beside each other than there are processors:
// they mostly wait for controllers. Unless -run says what is wanted, it leaves
// out what needs no real server, which runs without the tag e2e.
func TestMain(m *testing.M) {
	flag.Parse()
	err := flag.Set("test.parallel", "8")
	if flag.Lookup("test.run").Value.String() == "" {
		err = errors.Join(err, flag.Set("test.run", "^TestReal"))
	}
	if err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestRealAnswersAsRecorded sends every case to a real server, which has to
// answer what is recorded; TestSimulatedAgainstRecorded holds the simulated
// cluster to that. It ends with the cases that have the cluster for themselves:
// a server answers reads of the past from its cache, as long as few writes have
// passed through that.
func TestRealAnswersAsRecorded(t *testing.T) {
	tg, version := realServer(t)
	var n tally
	var mu sync.Mutex
	recorded := map[string]map[string][]answer{}
	one := func(t *testing.T, s scenario) {
		got, sent := play(t, tg, s)
		if t.Failed() {
			return
		}
		n.add(sent, 0)
		mu.Lock()
		defer mu.Unlock()
		if recorded[s.dimension()] == nil {
			recorded[s.dimension()] = map[string][]answer{}
		}
		recorded[s.dimension()][s.name] = got
	}
	t.Run("cases", func(t *testing.T) {
		for _, s := range slices.Concat(all()...) {
			if !s.alone {
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					one(t, s)
				})
			}
		}
	})
	for _, s := range slices.Concat(all()...) {
		if s.alone {
			t.Run(s.name, func(t *testing.T) { one(t, s) })
		}
	}
	for _, dimension := range all() {
		checkRecorded(t, dimension, version, recorded[dimension[0].dimension()])
	}
	t.Logf("%s: %d cases, %d requests", version, n.cases, n.requests)
}

// checkRecorded compares the recorded answers of a dimension with those that
// the real server gave now, or writes them.
func checkRecorded(t *testing.T, dimension []scenario, version string, now map[string][]answer) {
	t.Helper()
	if len(now) == 0 {
		return
	}
	d := dimension[0].dimension()
	if *record {
		var old goldens
		if _, err := os.Stat(goldenFile(d)); err == nil {
			old = readGoldens(t, d)
		}
		var order []string
		for _, s := range dimension {
			if now[s.name] == nil && old.answers[s.name] != nil {
				now[s.name] = old.answers[s.name]
			}
			if now[s.name] != nil {
				order = append(order, s.name)
			}
		}
		writeGoldens(t, d, version, order, now)
		return
	}
	g := readGoldens(t, d)
	if g.version != version {
		t.Errorf("%s is of %s, the server is %s; -record writes it anew", goldenFile(d), g.version, version)
	}
	for _, s := range dimension {
		if now[s.name] != nil && format(now[s.name]) != format(g.answers[s.name]) {
			for _, x := range compare(s.name, g.answers[s.name], now[s.name]) {
				want, got := apart(x.want, x.got)
				t.Errorf("%s: recorded is not what the server answers: #%d %s %s\n  recorded %s\n  answered %s", s.name, x.request, x.title, x.field, want, got)
			}
		}
	}
}

// realServer is the server to compare with, and its version.
func realServer(t *testing.T) (target, string) {
	t.Helper()
	p := realPlane(t)
	cfg := p.Config()
	rt, err := rest.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tg := target{
		name: "real server", host: cfg.Host, client: rt, patience: 800,
		pass: tick, compact: compactEtcd(p.EtcdURL()),
	}
	r := &runner{t: t, ctx: t.Context(), target: tg, names: newNames(), kept: map[string]string{}}
	_, data, err := r.expect("GET", "/version", nil, http.StatusOK)
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ GitVersion string }
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	prepare(t, tg)
	return tg, v.GitVersion
}

// realPlane starts a control plane and stops it in the end. What the cases leave
// behind goes with it.
func realPlane(t *testing.T) *plane.Plane {
	t.Helper()
	b, err := plane.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := plane.Start(t.Context(), plane.Options{Binaries: b, FirstPort: 27000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// tick is a moment of real time.
func tick(ctx context.Context) error {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// compactEtcd compacts the server's etcd at its present revision, over etcd's
// JSON gateway.
func compactEtcd(endpoint string) func(ctx context.Context) error {
	call := func(ctx context.Context, path string, in, out any) error {
		body, err := json.Marshal(in)
		if err != nil {
			return err
		}
		q, err := http.NewRequestWithContext(ctx, "POST", endpoint+path, strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // read to its end
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("etcd %s: %d %s", path, resp.StatusCode, data)
		}
		return json.Unmarshal(data, out)
	}
	return func(ctx context.Context) error {
		var now struct {
			Header struct {
				Revision string `json:"revision"`
			} `json:"header"`
		}
		if err := call(ctx, "/v3/kv/range", map[string]string{"key": "AA=="}, &now); err != nil {
			return err
		}
		return call(ctx, "/v3/kv/compaction", map[string]string{"revision": now.Header.Revision}, &struct{}{})
	}
}
