package effect

import "time"

// Health is one question about the services, in PromQL, and the answers with
// which a run goes on (RUT014).
type Health struct {
	Name  string `json:"name"`
	Query string `json:"query"`
	// Max and Min bound every sample of the answer; nil means no bound.
	Max *float64 `json:"max,omitempty"`
	Min *float64 `json:"min,omitempty"`
	// Interval between two looks; 0 means the policy's.
	Interval time.Duration `json:"interval,omitempty"`
}

// Look is one look at the health of the services while a call changes them.
type Look struct {
	// Queries are those of the runbook, beside the policy's.
	Queries []Health
	// Settled: no rollout of the call is under way, so that every pod ought to
	// be ready.
	Settled bool
}
