package cluster

import (
	"fmt"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"
	clienttransport "k8s.io/client-go/transport"
)

// Link is the bare way to a cluster, for requests that are put together by hand.
type Link struct {
	Base *url.URL // with the path below which the API is served, "" for most
	HTTP http.RoundTripper
}

// Link is the client's own way to its cluster, with its limits and its retries
// of reads. guard is put around the network itself, below everything that
// authenticates: nothing leaves through the Link that guard has not seen. base
// is told to guard, too, because paths begin with its path.
func (c *Client) Link(guard func(base *url.URL, next http.RoundTripper) http.RoundTripper) (*Link, error) {
	cfg := rest.CopyConfig(c.config)
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: address: %w", c.name, err)
	}
	cfg.WrapTransport = clienttransport.Wrappers(func(next http.RoundTripper) http.RoundTripper { return guard(base, next) }, cfg.WrapTransport)
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.name, err)
	}
	return &Link{Base: base, HTTP: hc.Transport}, nil
}
