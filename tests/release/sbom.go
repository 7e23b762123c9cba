package main

import (
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"runtime/debug"
	"slices"
)

// bom is a CycloneDX document, as far as it is used here (https://cyclonedx.org,
// 1.6). It has neither serial number nor time, so that it is the same each time.
type bom struct {
	Format     string      `json:"bomFormat"`
	Spec       string      `json:"specVersion"`
	Version    int         `json:"version"`
	Metadata   metadata    `json:"metadata"`
	Components []component `json:"components"`
}

type metadata struct {
	Component  component  `json:"component"`
	Properties []property `json:"properties"`
}

type component struct {
	Type    string `json:"type"`
	Ref     string `json:"bom-ref"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
	// Properties of a module: its checksum as go.sum has it.
	Properties []property `json:"properties,omitempty"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// sbomOf lists what the linker recorded in a binary: each module with its version
// and checksum, Go's own library, and how it was built.
func sbomOf(info *buildinfo.BuildInfo, name, version string) ([]byte, error) {
	main := purl(info.Main.Path, version)
	b := bom{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{
		Component: component{Type: "application", Ref: main, Name: name, Version: version, PURL: main},
	}}
	for _, s := range info.Settings {
		b.Metadata.Properties = append(b.Metadata.Properties, property{"build:" + s.Key, s.Value})
	}
	b.Components = append(b.Components, library(&debug.Module{Path: "std", Version: info.GoVersion}))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		b.Components = append(b.Components, library(m))
	}
	slices.SortFunc(b.Components, func(x, y component) int { return cmp.Compare(x.Ref, y.Ref) })
	out, err := json.MarshalIndent(b, "", "  ")
	return append(out, '\n'), err
}

func library(m *debug.Module) component {
	c := component{Type: "library", Ref: purl(m.Path, m.Version), Name: m.Path, Version: m.Version, PURL: purl(m.Path, m.Version)}
	if m.Sum != "" {
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}

// purl is the package URL of a Go module.
func purl(path, version string) string { return "pkg:golang/" + path + "@" + version }
