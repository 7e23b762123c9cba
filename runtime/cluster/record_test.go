package cluster_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

// The log holds every request with its body, its answer's status and who asked;
// of a wait on a virtual clock it holds the list and the watch of a real one.
func TestRequestsAreRecorded(t *testing.T) {
	s, err := sim.New(sim.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var log []cluster.Asked
	c, err := cluster.New(s.Config(), "sim", s.Clock(), cluster.ClientOptions{Record: func(a cluster.Asked) { log = append(log, a) }})
	if err != nil {
		t.Fatal(err)
	}
	by := cluster.Asker{Step: "control plane", By: "kube.apply"}
	ctx := cluster.WithAsker(t.Context(), by)
	if _, err := c.Apply(ctx, configMap("1"), cluster.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	ref := cluster.RefOf(configMap(""))
	if got, err := c.Get(ctx, ref); err != nil || got.Object["data"].(map[string]any)["k"] != "1" {
		t.Fatalf("the recorded body did not reach the server: %v, %v", got, err)
	}
	if err := c.WaitFor(ctx, []cluster.Ref{ref}, time.Minute, func(now []*cluster.Object) (bool, error) { return now[0] != nil, nil }); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range log {
		if !strings.Contains(a.Request.URL.Path, "/configmaps") {
			continue // discovery
		}
		if a.By != by {
			t.Errorf("%s %s by %v", a.Request.Method, a.Request.URL, a.By)
		}
		line := a.Request.Method + " " + a.Request.URL.Path
		if q := a.Request.URL.Query(); a.Meant {
			line += " meant, watch=" + q.Get("watch") + " of " + q.Get("fieldSelector")
		} else if a.Status == 0 {
			t.Errorf("%s: no status", line)
		}
		if a.Request.Method == "PATCH" && !strings.Contains(string(a.Body), `"k":"1"`) {
			t.Errorf("%s: body %q", line, a.Body)
		}
		got = append(got, line)
	}
	const path = "/api/v1/namespaces/default/configmaps"
	want := []string{
		"PATCH " + path + "/web", "GET " + path + "/web",
		"GET " + path + " meant, watch= of metadata.name=web", "GET " + path + " meant, watch=true of metadata.name=web",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
