package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// maxProbed is the most of an answer's body that is read, in bytes. A sidecar's
// statistics have some megabytes.
const maxProbed = 32 << 20

// Probe is a GET that the API server sends (the proxy subresource of pods and
// Services), in plain HTTP.
type Probe struct {
	Ref  Ref    // a pod or a Service
	Port int    // of the pod or the Service
	Path string // from "/" on, with a query or without
	// Host is the request's Host header, which the API server passes on
	// (k8s.io/apimachinery pkg/util/proxy, UseLocationHost is not set); "" leaves
	// that of the API server. What stands before the API server and routes by the
	// header itself must not be in the way.
	Host string
}

// HeaderAssumed marks an answer of a twin that says nothing of what the real
// cluster would answer: what routes, applications and hosts outside of it do.
const HeaderAssumed = "Rutter-Assumed"

// ProbeAnswer is what came back. A redirect is not followed.
type ProbeAnswer struct {
	Status  int
	Body    []byte
	Assumed bool // see HeaderAssumed
}

// String is the probe in words: "GET service/web in shop port 80 /".
func (p Probe) String() string {
	s := fmt.Sprintf("GET %s port %d %s", p.Ref, p.Port, p.Path)
	if p.Host != "" {
		s += " for host " + p.Host
	}
	return s
}

// url is where the API server takes the probe. Paths that could lead to another
// object of the API are refused.
func (p Probe) url(base *url.URL) (*url.URL, error) {
	plural := map[string]string{"Pod": "pods", "Service": "services"}[p.Ref.Kind]
	if plural == "" || p.Ref.Group != "" {
		return nil, errors.New("only pods and Services are probed")
	}
	if err := segments(p.Ref.Namespace, p.Ref.Name); err != nil {
		return nil, err
	}
	if p.Port < 1 || p.Port > 65535 {
		return nil, fmt.Errorf("port %d is none, expected 1 to 65535", p.Port)
	}
	to, err := url.ParseRequestURI(p.Path)
	if err != nil || !strings.HasPrefix(p.Path, "/") || to.RawPath != "" || strings.ContainsAny(to.Path, "\\%\x00") || path.Clean(to.Path) != to.Path && path.Clean(to.Path)+"/" != to.Path {
		return nil, fmt.Errorf("path %q can be read in more than one way; expected one from / on, without .. or escapes", p.Path)
	}
	u := *base
	u.Path = strings.TrimSuffix(base.Path, "/") + fmt.Sprintf("/api/v1/namespaces/%s/%s/%s:%d/proxy", p.Ref.Namespace, plural, p.Ref.Name, p.Port) + to.Path
	u.RawQuery = to.RawQuery
	return &u, nil
}

// Probe implements Reader.
func (c *Client) Probe(ctx context.Context, p Probe) (*ProbeAnswer, error) {
	base, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: address: %w", c.name, err)
	}
	u, err := p.url(base)
	if err != nil {
		return nil, &RequestError{Subject: p.String(), Kind: ErrInvalid, Message: err.Error()}
	}
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	fail := func(err error) error { return c.request(ctx, p.String(), p.Ref, x).mapError(err) }
	req, err := http.NewRequestWithContext(rctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fail(err)
	}
	req.Host = p.Host
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, fail(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbed+1))
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return nil, fail(err)
	case len(body) > maxProbed:
		return nil, &RequestError{Subject: p.String(), Kind: ErrInvalid, Message: fmt.Sprintf("the answer has more than %d MiB", maxProbed>>20)}
	}
	if st := ownWords(resp, body); st != nil {
		return nil, fail(&apierrors.StatusError{ErrStatus: *st})
	}
	return &ProbeAnswer{Status: resp.StatusCode, Body: body, Assumed: resp.Header.Get(HeaderAssumed) != ""}, nil
}

// ownWords is the API server's own refusal; nil where the answer is that of
// what was probed.
func ownWords(resp *http.Response, body []byte) *metav1.Status {
	if resp.StatusCode < 400 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return nil
	}
	st := &metav1.Status{}
	if json.Unmarshal(body, st) != nil || st.Kind != "Status" || st.APIVersion != "v1" {
		return nil
	}
	return st
}
