// Package restart declares the builtins that replace the pods of workloads: by
// owner, in waves, within disruption budgets, stopping at the first workload
// that does not come back well.
//
// It patches, evicts and waits; which proxies are outdated is runtime/mesh's to
// say, and whether a restart may be made is the gates'. It must not link Istio.
package restart
