package gate

import "time"

// Policy is the organization's rutter.yaml: what a runbook can neither read nor
// change. The zero value allows what the gates' own rules allow.
type Policy struct {
	// Allow and Deny are matched on the effective API request.
	Allow []Rules `json:"allow,omitempty"`
	Deny  []Rules `json:"deny,omitempty"`
	// Leave names workloads ("shop/web", "shop/*") that may lose their only
	// replica during a restart.
	Leave []string `json:"singleReplicaLeave,omitempty"`
	// MaxWave bounds how many workloads one wave restarts, its blast radius;
	// 0 means no bound.
	MaxWave int `json:"maxWave,omitempty"`
	// ProtectedContexts may never be changed.
	ProtectedContexts []string `json:"protectedContexts,omitempty"`
	// Prometheus is where RUT014 asks how the services are; nil: nowhere.
	Prometheus *Prometheus `json:"-"`
	// Thresholds bound what RUT014 sees in the cluster itself.
	Thresholds Thresholds `json:"-"`
}

// Prometheus is a server that answers PromQL over HTTP, and what it is asked.
type Prometheus struct {
	URL string // http or https, without a query
	// TokenFile and CAFile are read by the host: a bearer token, and the
	// certificates that the server's must come from. "" means none, and the
	// machine's own.
	TokenFile, CAFile string
	Interval          time.Duration // between two looks, for queries that name none; positive
	Queries           []HealthQuery
}

// HealthQuery is one question and the answers with which a run goes on.
type HealthQuery struct {
	Name, Query string
	// Max and Min bound every sample of the answer; nil means no bound. One of
	// them is set.
	Max, Min *float64
	Interval time.Duration // 0 means that of the server
}

// Thresholds bound the health of the cluster itself; nil means no bound.
type Thresholds struct {
	MaxRestarts *int // containers that restarted since the last wave
	MaxNotReady *int // pods that are not ready
}

// Rules match requests by namespace, kind and verb; an empty list matches
// everything. "*", "?" and "[…]" are wildcards, as in a shell; case does not
// matter. A cluster-scoped object has the namespace "".
type Rules struct {
	Namespaces []string `json:"namespaces,omitempty"`
	Kinds      []string `json:"kinds,omitempty"` // "Deployment.apps"
	Verbs      []string `json:"verbs,omitempty"`
}
