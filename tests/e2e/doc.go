// Package e2e runs rutter against a real Kubernetes control plane and a real
// istiod (see the packages plane and nodesim). Its tests have the build tag
// e2e: make e2e builds what they need, runs them, and stops everything.
package e2e
