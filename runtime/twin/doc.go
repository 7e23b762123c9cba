// Package twin makes a simulated cluster that begins as a real one: reads fall
// through to the live API server, writes and controllers stay in the twin, on
// virtual time. What a runbook does to the twin is what it would do to the
// cluster, and nothing of it reaches the cluster.
//
// It must not know the engine, runbooks or Istio.
package twin
