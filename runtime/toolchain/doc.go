// Package toolchain finds, fetches, checks and runs the istioctl of any Istio
// version: in the cache, in folders, on PATH, or from a mirror with the layout
// of Istio's releases.
//
// Nothing that comes from a network is unpacked or run before its SHA-256 is the
// one pinned in the lock file (rutter.lock); what is not pinned is fetched only
// where the organization trusts on first use, and pinned then. Archives are
// unpacked below an os.Root, without links, and within bounds. An entry of the
// cache appears as a whole or not at all, and is made by one process at a time.
//
//	$CACHE/istio-1.30.3-linux-amd64/
//	    bin/istioctl
//	    manifests/           charts and profiles
//	    rutter-toolchain.json  digests of the archive and of the binary
package toolchain
