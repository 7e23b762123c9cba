package metrics

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// still is a clock on which pauses take no time.
type still struct{ slept time.Duration }

func (c *still) Now() time.Time { return time.Unix(0, 0) }
func (c *still) Virtual() bool  { return true }
func (c *still) Sleep(ctx context.Context, d time.Duration) error {
	c.slept += d
	return ctx.Err()
}

func vector(samples ...string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(samples, ",") + `]}}`
}

func TestQuery(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // samples, or what the error says
		again  bool   // the error is one of no answer, so it was tried again
	}{
		"a vector":            {200, vector(`{"metric":{"__name__":"up","b":"2","a":"1"},"value":[1.5,"0.25"]}`), `[{up{a="1",b="2"} 0.25}]`, false},
		"sorted":              {200, vector(`{"metric":{"a":"2"},"value":[1,"2"]}`, `{"metric":{"a":"1"},"value":[1,"1"]}`), `[{{a="1"} 1} {{a="2"} 2}]`, false},
		"a scalar":            {200, `{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}`, `[{ 3}]`, false},
		"no data":             {200, vector(), `[]`, false},
		"infinite":            {200, vector(`{"metric":{},"value":[1,"+Inf"]}`), `[{ +Inf}]`, false},
		"with warnings":       {200, `{"status":"success","warnings":["w"],"data":{"resultType":"vector","result":[]}}`, `[]`, false},
		"a matrix":            {200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, "gives a matrix", false},
		"a string":            {200, `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`, "gives a string", false},
		"a bad expression":    {400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, "bad_data: parse error", false},
		"timed out":           {503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, "timeout: query timed out", true},
		"another server":      {200, `<html>hello</html>`, "not the answer of a Prometheus", true},
		"a login page":        {302, ``, "HTTP 302", true},
		"broken":              {502, `bad gateway`, "HTTP 502", true},
		"no number":           {200, vector(`{"metric":{},"value":[1,"many"]}`), `"many" is no number`, false},
		"a histogram":         {200, vector(`{"metric":{},"histogram":[1,{}]}`), "is a histogram", false},
		"too much":            {200, strings.Repeat(" ", maxAnswer+1), "more than 4 MiB", false},
		"value of wrong type": {200, vector(`{"metric":{},"value":[1,2]}`), "no text", false},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				if r.URL.Path != "/prom/api/v1/query" || r.FormValue("query") != "up == 1" {
					t.Errorf("asked %s for %q", r.URL, r.FormValue("query"))
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			defer s.Close()
			clock := &still{}
			client, err := New(Options{URL: s.URL + "/prom/", Clock: clock})
			if err != nil {
				t.Fatal(err)
			}
			got, err := client.Query(context.Background(), "up == 1")
			if text := fmt.Sprint(got); err == nil && text != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v; want %s", text, err, c.want)
			}
			if errors.Is(err, ErrUnreachable) != c.again {
				t.Errorf("%v counts as no answer: %v, want %v", err, !c.again, c.again)
			}
			if want := map[bool]int{true: tries, false: 1}[c.again]; asked != want {
				t.Errorf("asked %d times, want %d", asked, want)
			}
		})
	}
}

func TestQueryAgain(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked < tries {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, vector(`{"metric":{},"value":[1,"NaN"]}`))
	}))
	clock := &still{}
	client, err := New(Options{URL: s.URL, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Query(context.Background(), "x")
	if err != nil || len(got) != 1 || got[0].Known() || !math.IsNaN(got[0].Value) {
		t.Errorf("got %v, %v", got, err)
	}
	if clock.slept != (tries-1)*pause {
		t.Errorf("paused for %s", clock.slept)
	}
	s.Close()
	if _, err := client.Query(context.Background(), "x"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a server that is gone: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.Query(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A server that takes only GET is asked so; the token is read anew each time.
func TestQueryWithToken(t *testing.T) {
	var methods []string
	token := filepath.Join(t.TempDir(), "token")
	write := func(s string) {
		if err := os.WriteFile(token, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods = append(methods, r.Method+" "+r.Header.Get("Authorization"))
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		fmt.Fprint(w, vector())
	}))
	defer s.Close()
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := New(Options{URL: s.URL, TokenFile: token, CAFile: ca, Clock: &still{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Query(context.Background(), "x"); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without the token's file: %v", err)
	}
	for _, tok := range []string{"one\n", "two"} {
		write(tok)
		if _, err := client.Query(context.Background(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(methods, ", "); got != "POST Bearer one, GET Bearer one, POST Bearer two, GET Bearer two" {
		t.Errorf("asked %s", got)
	}
	stranger, err := New(Options{URL: s.URL, Clock: &still{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Query(context.Background(), "x"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a certificate of nobody: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{URL: ""},
		{URL: "prometheus:9090"},
		{URL: "ftp://x"},
		{URL: "http://"},
		{URL: "http://x?query=y"},
		{URL: "http://x/%zz"},
		{URL: "https://x", CAFile: none},
		{URL: "https://x", CAFile: empty},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// FuzzDecode: whatever a server answers is samples or an error.
func FuzzDecode(f *testing.F) {
	f.Add(200, vector(`{"metric":{"a":"1"},"value":[1,"2"]}`))
	f.Add(200, `{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}`)
	f.Add(400, `{"status":"error","errorType":"bad_data","error":"x"}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		samples, err := decode(status, []byte(body))
		if err != nil && samples != nil {
			t.Errorf("both samples and %v", err)
		}
	})
}
