package host

import (
	"context"

	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/metrics"
)

// metrics is whom the session's run asks about health. What is wrong with the
// server that the policy names shows where it is asked, and blocks there.
func (s Session) metrics() gate.Metrics {
	switch {
	case s.Metrics != nil:
		return s.Metrics
	case s.Env.Clock.Virtual():
		return gate.Assumed{}
	case s.Policy == nil || s.Policy.Prometheus == nil:
		return nil
	}
	p := s.Policy.Prometheus
	c, err := metrics.New(metrics.Options{URL: p.URL, TokenFile: p.TokenFile, CAFile: p.CAFile, Clock: s.Env.Clock})
	if err != nil {
		return unusable{err}
	}
	return c
}

// unusable is a server that can't even be asked.
type unusable struct{ err error }

// Query implements gate.Metrics.
func (u unusable) Query(context.Context, string) ([]metrics.Sample, error) { return nil, u.err }
