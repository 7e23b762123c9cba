package testrun

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/sim"
)

// simCache makes each cluster once and hands out clones, so that a mesh costs
// its making once however many tests start from it.
type simCache struct {
	make func(context.Context, SimSpec) (*sim.Cluster, error)
	mu   sync.Mutex
	made map[SimSpec]func() (*sim.Cluster, error)
	used []SimSpec // those that are kept, the latest last
}

// simsKept bounds the clusters that are kept: a mesh takes some 10 MB, the tests
// of one file share one or two, and a catalogue has many files.
const simsKept = 6

func (c *simCache) get(ctx context.Context, spec SimSpec) (*sim.Cluster, error) {
	base, err := c.base(ctx, spec)()
	if err != nil {
		return nil, err
	}
	return base.Clone(), nil
}

// base gives what makes the cluster, once, or made it.
func (c *simCache) base(ctx context.Context, spec SimSpec) func() (*sim.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made = map[SimSpec]func() (*sim.Cluster, error){}
	}
	once := c.made[spec]
	if once == nil {
		once = sync.OnceValues(func() (*sim.Cluster, error) { return c.make(ctx, spec) })
		c.made[spec] = once
	}
	c.used = append(slices.DeleteFunc(c.used, func(s SimSpec) bool { return s == spec }), spec)
	if len(c.used) > simsKept {
		delete(c.made, c.used[0])
		c.used = c.used[1:]
	}
	return once
}

// admin is a client of s whose requests are the test's own: faults do not
// strike them, and the log of requests leaves them out.
func admin(s *sim.Cluster) (*cluster.Client, error) {
	cfg := s.Config()
	cfg.Transport = asAdmin{cfg.Transport}
	return cluster.New(cfg, clusterName, s.Clock(), cluster.ClientOptions{})
}

type asAdmin struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a asAdmin) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", sim.AdminAgent)
	return a.next.RoundTrip(r)
}
