// Package metrics asks a Prometheus, or what speaks its HTTP API, how the
// services are: instant queries only. It must not know gates or runbooks.
package metrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"rutter.dev/rutter/runtime/env"
)

// ErrUnreachable: there was no answer, or none that can be relied on. It may be
// another time.
var ErrUnreachable = errors.New("no answer")

// Limits of one query.
const (
	tries     = 3
	pause     = time.Second // between tries
	timeout   = 10 * time.Second
	maxAnswer = 4 << 20 // bytes
)

// Options say which server is asked.
type Options struct {
	URL string // http or https; the API's path is added to it
	// TokenFile holds a bearer token; it is read for every query, since tokens
	// are rotated. CAFile holds the PEM certificates that the server's must come
	// from. "" means none, and the machine's own.
	TokenFile, CAFile string
	Clock             env.Clock
}

// Client asks one server. Safe for concurrent use.
type Client struct {
	o    Options
	api  string
	http *http.Client
}

// Sample is one value of an answer, with the labels of its series ("" for a scalar).
type Sample struct {
	Series string
	Value  float64
}

// New makes a client. It sends nothing.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("prometheus: %s: expected http://HOST or https://HOST, with a path or without", u.Redacted())
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: timeout, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("prometheus: certificates: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("prometheus: %s holds no PEM certificate", o.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &Client{
		o: o, api: u.JoinPath("api", "v1", "query").String(),
		http: &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // an answer of the login page says nothing
		}},
	}, nil
}

// Query asks for the value of a PromQL expression now. An answer without samples
// is empty. Where there is no answer it tries again a few times; the error then
// matches ErrUnreachable, unless the server refuses the expression itself.
func (c *Client) Query(ctx context.Context, promql string) ([]Sample, error) {
	for n := 1; ; n++ {
		samples, err := c.ask(ctx, promql)
		if err == nil || n == tries || ctx.Err() != nil || !errors.Is(err, ErrUnreachable) {
			return samples, err
		}
		if err := c.o.Clock.Sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// ask sends one query: as a POST, since expressions can be long, and as a GET
// to a server or proxy that takes only those.
func (c *Client) ask(ctx context.Context, promql string) ([]Sample, error) {
	form := url.Values{"query": {promql}, "timeout": {"10s"}}.Encode()
	status, body, err := c.send(ctx, http.MethodPost, c.api, form)
	if err == nil && (status == http.StatusMethodNotAllowed || status == http.StatusForbidden) {
		status, body, err = c.send(ctx, http.MethodGet, c.api+"?"+form, "")
	}
	if err != nil {
		return nil, err
	}
	return decode(status, body)
}

func (c *Client) send(ctx context.Context, method, at, form string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, at, strings.NewReader(form))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", "application/json")
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if c.o.TokenFile != "" {
		token, err := os.ReadFile(c.o.TokenFile)
		if err != nil {
			return 0, nil, fmt.Errorf("prometheus: token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("prometheus: %w: %w", ErrUnreachable, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("prometheus: %s: %w: %w", c.api, ErrUnreachable, err)
	case len(body) > maxAnswer:
		return 0, nil, fmt.Errorf("prometheus: the answer has more than %d MiB; expected an expression with few series", maxAnswer>>20)
	}
	return res.StatusCode, body, nil
}

// answer is the API's envelope (prometheus.io/docs/prometheus/latest/querying/api).
type answer struct {
	Status    string `json:"status"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
	Data      struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

func decode(status int, body []byte) ([]Sample, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil || a.Status == "" {
		return nil, fmt.Errorf("prometheus: %w: HTTP %d, and not the answer of a Prometheus", ErrUnreachable, status)
	}
	if a.Status != "success" {
		err := fmt.Errorf("prometheus: %s: %s", a.ErrorType, a.Error)
		if !slices.Contains([]string{"bad_data", "execution"}, a.ErrorType) {
			err = fmt.Errorf("prometheus: %w: %s: %s", ErrUnreachable, a.ErrorType, a.Error)
		}
		return nil, err
	}
	switch a.Data.Type {
	case "vector":
		var vector []struct {
			Metric map[string]string `json:"metric"`
			Value  *point            `json:"value"` // none where it is a histogram
		}
		if err := json.Unmarshal(a.Data.Result, &vector); err != nil {
			return nil, fmt.Errorf("prometheus: vector: %w", err)
		}
		out := make([]Sample, 0, len(vector))
		for _, s := range vector {
			if s.Value == nil {
				return nil, fmt.Errorf("prometheus: %s is a histogram, expected an expression that gives numbers", series(s.Metric))
			}
			out = append(out, Sample{Series: series(s.Metric), Value: float64(*s.Value)})
		}
		slices.SortFunc(out, func(a, b Sample) int { return strings.Compare(a.Series, b.Series) })
		return out, nil
	case "scalar":
		var p point
		if err := json.Unmarshal(a.Data.Result, &p); err != nil {
			return nil, fmt.Errorf("prometheus: scalar: %w", err)
		}
		return []Sample{{Value: float64(p)}}, nil
	}
	return nil, fmt.Errorf("prometheus: the expression gives a %s, expected an instant vector or a scalar", a.Data.Type)
}

// point is the value of [time, "value"].
type point float64

// UnmarshalJSON implements json.Unmarshaler.
func (p *point) UnmarshalJSON(b []byte) error {
	var pair []any
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("%d elements, expected a time and a value", len(pair))
	}
	text, ok := pair[1].(string)
	if !ok {
		return errors.New("the value is no text")
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("value %q is no number", text)
	}
	*p = point(v)
	return nil
}

// series writes labels as PromQL does.
func series(m map[string]string) string {
	var parts []string
	for k, v := range m {
		if k != "__name__" {
			parts = append(parts, fmt.Sprintf("%s=%q", k, v))
		}
	}
	slices.Sort(parts)
	name := m["__name__"]
	if len(parts) == 0 {
		return name
	}
	return name + "{" + strings.Join(parts, ",") + "}"
}

// Known reports whether the value is a number that can be compared.
func (s Sample) Known() bool { return !math.IsNaN(s.Value) }
