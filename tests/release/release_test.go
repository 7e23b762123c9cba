package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTwice builds a command that links little from two folders, as the
// release is built, and looks at its SBOM.
func TestTwice(t *testing.T) {
	out := t.TempDir()
	r := release{root: "../..", pkg: "./tests/release/testdata/hello", name: "hello", version: "1.2.3", talk: os.Stderr}
	sums, err := r.twice(out, []string{"linux/arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(sums, "\n"); n != 2 {
		t.Errorf("%d checksums, want those of a binary and its SBOM:\n%s", n, sums)
	}
	raw, err := os.ReadFile(filepath.Join(out, "hello-1.2.3-linux-arm64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b bom
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.Metadata.Component.Version != "1.2.3" {
		t.Errorf("got %s", raw)
	}
	var found bool
	for _, c := range b.Components {
		found = found || c.Name == "go.starlark.net" && c.Version != "" && len(c.Properties) == 1
	}
	if !found {
		t.Errorf("the SBOM does not name a module that is linked, with its checksum: %s", raw)
	}
	for _, p := range b.Metadata.Properties {
		if p.Name == "build:-trimpath" && p.Value == "true" {
			return
		}
	}
	t.Errorf("paths are not trimmed: %s", raw)
}

// TestPlatform: what is no platform is refused before anything is built.
func TestPlatform(t *testing.T) {
	r := release{root: "../..", pkg: "./tests/release/testdata/hello", name: "hello", version: "1.2.3", talk: os.Stderr}
	if _, err := r.build(t.TempDir(), []string{"linux"}); err == nil {
		t.Error("a platform without its processor was taken")
	}
}
