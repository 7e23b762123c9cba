// Package loader finds, reads and compiles the modules of a runbook: relative
// ones within the runbook's root, and those of the standard library. All
// sources that a runbook can reach are collected before anything runs, so that
// a run can pin them and be resumed from the bundle alone.
package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
)

// Bundle is every source that an entry file reaches, itself included.
type Bundle struct {
	// Entry is the label of the runbook: "//istio/in-place.star".
	Entry string `json:"entry"`
	// Files maps labels ("//lib/x.star", "@stdlib//validate.star") to contents.
	Files map[string]string `json:"files"`
}

// Digest is the sha256 over entry, labels and contents, "sha256:<hex>".
func (b *Bundle) Digest() string {
	labels := make([]string, 0, len(b.Files))
	for l := range b.Files {
		labels = append(labels, l)
	}
	sort.Strings(labels)
	h := sha256.New()
	add := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	add(b.Entry)
	for _, l := range labels {
		add(l)
		add(b.Files[l])
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}
