package gate

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
}

// Rules match requests by namespace, kind and verb; an empty list matches
// everything. "*", "?" and "[…]" are wildcards, as in a shell; case does not
// matter. A cluster-scoped object has the namespace "".
type Rules struct {
	Namespaces []string `json:"namespaces,omitempty"`
	Kinds      []string `json:"kinds,omitempty"` // "Deployment.apps"
	Verbs      []string `json:"verbs,omitempty"`
}
