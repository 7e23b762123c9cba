// Package nodesim is what kwok leaves out of a node when a mesh runs on it. For
// every istiod pod it runs a real istiod, with the pod's own arguments and
// environment, and the pod is ready when that process is. It is the pod network
// of the API server, which calls webhooks at the addresses of those pods (as an
// HTTP CONNECT proxy behind the API server's egress selector). And it speaks for
// the proxies: each ready pod with one has a stream to the istiod of its
// revision, as Envoy would.
package nodesim
