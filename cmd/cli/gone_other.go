//go:build !unix

package cli

// nobodyReads: there is no SIGPIPE to ask it after.
func nobodyReads() bool { return false }
