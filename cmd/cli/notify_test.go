package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/gate"
)

func TestAnnounce(t *testing.T) {
	e := ending{Run: "r1", Status: "failed", Runbook: "up", Version: "1.0.0", Cluster: "prod", Text: "it failed"}
	for name, c := range map[string]struct {
		kind string
		code int
		want map[string]string
		err  string
	}{
		"webhook":  {"webhook", http.StatusOK, map[string]string{"run": "r1", "status": "failed", "runbook": "up", "version": "1.0.0", "cluster": "prod", "text": "it failed"}, ""},
		"slack":    {"slack", http.StatusOK, map[string]string{"text": "it failed"}, ""},
		"refused":  {"webhook", http.StatusForbidden, nil, "403"},
		"redirect": {"webhook", http.StatusFound, nil, "302"},
	} {
		t.Run(name, func(t *testing.T) {
			var got map[string]string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
					t.Error(err)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.code)
			}))
			defer srv.Close()
			file := filepath.Join(t.TempDir(), "url")
			if err := os.WriteFile(file, []byte(srv.URL+"/secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := announce(t.Context(), http.DefaultTransport, gate.Notify{Name: "team", Kind: c.kind, URLFile: file}, e)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("got %v, want %q", err, c.err)
			}
			for k, v := range c.want {
				if got[k] != v || len(got) != len(c.want) {
					t.Errorf("got %v, want %v", got, c.want)
				}
			}
		})
	}
}

// The URL of a place may hold its token.
func TestAnnounceKeepsTheURL(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	err := announce(t.Context(), http.DefaultTransport, gate.Notify{Kind: "webhook", URL: srv.URL + "/T0K3N"}, ending{})
	if err == nil || strings.Contains(err.Error(), "T0K3N") {
		t.Errorf("got %v", err)
	}
}
