package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"rutter.dev/rutter/runtime/diag"
)

// Spec says what a generated mesh holds. Equal specs build equal meshes.
type Spec struct {
	Istio      string // version of the control plane and of the proxies, "1.30.3"
	Revision   string // of the control plane; "" is the default one
	Workloads  int    // Deployments, StatefulSets and DaemonSets together
	Namespaces int    // that the workloads are spread over
	Nodes      int
	NodePods   int // that a node has room for, 500 when 0; processors and memory in proportion
	Ambient    int // of the namespaces, those in ambient mode
	Seed       int64
	// WithoutCRDs are names of Istio's CustomResourceDefinitions, joined by "+",
	// that somebody else installs in this organization (base.excludedCRDs), so
	// that the mesh is made without them. They are nine tenths of a manifest.
	WithoutCRDs string

	// The following count workloads with a property that upgrades trip over.
	// No workload has two of them.
	SingleReplica int // Deployments with one replica
	OnDelete      int // StatefulSets that are updated only when a pod is deleted
	NoSidecar     int // workloads whose pods opt out of injection
	StrictPDBs    int // Deployments whose PodDisruptionBudget allows no disruption
	BarePods      int // pods without an owner, beside the workloads
}

// Default is the mesh that "mesh" alone stands for.
func Default() Spec {
	return Spec{Istio: "1.30.3", Workloads: 60, Namespaces: 12, Nodes: 3, Seed: 1, NoSidecar: 3}
}

// limits that keep a typing error from filling the memory.
const (
	maxWorkloads  = 20000
	maxNamespaces = 5000
	maxNodes      = 5000
	maxNodePods   = 100000
)

// setter sets one key of the command-line form.
type setter func(s *Spec, value string) error

func count(field func(*Spec) *int, least, most int) setter {
	return func(s *Spec, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a number from %d to %d", value, least, most)
		}
		*field(s) = n
		return nil
	}
}

func setters() map[string]setter {
	return map[string]setter{
		"istio": func(s *Spec, v string) error {
			if _, err := semver.StrictNewVersion(v); err != nil {
				return fmt.Errorf("%q is not a version such as 1.30.3", v)
			}
			s.Istio = v
			return nil
		},
		"revision": func(s *Spec, v string) error {
			if v == "" || strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				return fmt.Errorf("%q is not a revision name such as 1-30-3", v)
			}
			s.Revision = v
			return nil
		},
		"seed": func(s *Spec, v string) error {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not a whole number", v)
			}
			s.Seed = n
			return nil
		},
		"without-crds": func(s *Spec, v string) error {
			for _, name := range strings.Split(v, "+") {
				if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 || !strings.Contains(name, ".") {
					return fmt.Errorf("%q is not a name such as sidecars.networking.istio.io; several are joined by +", name)
				}
			}
			s.WithoutCRDs = v
			return nil
		},
		"workloads":      count(func(s *Spec) *int { return &s.Workloads }, 0, maxWorkloads),
		"namespaces":     count(func(s *Spec) *int { return &s.Namespaces }, 1, maxNamespaces),
		"nodes":          count(func(s *Spec) *int { return &s.Nodes }, 1, maxNodes),
		"node-pods":      count(func(s *Spec) *int { return &s.NodePods }, 1, maxNodePods),
		"ambient":        count(func(s *Spec) *int { return &s.Ambient }, 0, maxNamespaces),
		"single-replica": count(func(s *Spec) *int { return &s.SingleReplica }, 0, maxWorkloads),
		"on-delete":      count(func(s *Spec) *int { return &s.OnDelete }, 0, maxWorkloads),
		"no-sidecar":     count(func(s *Spec) *int { return &s.NoSidecar }, 0, maxWorkloads),
		"strict-pdbs":    count(func(s *Spec) *int { return &s.StrictPDBs }, 0, maxWorkloads),
		"bare-pods":      count(func(s *Spec) *int { return &s.BarePods }, 0, maxWorkloads),
	}
}

// Parse reads the command-line form, "mesh" or "mesh,key=value,…". Namespaces
// and opted-out workloads that are not given follow from the number of
// workloads.
func Parse(text string) (Spec, error) {
	s := Default()
	parts := strings.Split(text, ",")
	if parts[0] != "mesh" {
		return Spec{}, fmt.Errorf("simulated mesh %q: got %q, expected it to begin with \"mesh\", as in mesh,istio=1.30.3,workloads=60", text, parts[0])
	}
	known, seen := setters(), map[string]bool{}
	for _, part := range parts[1:] {
		key, value, found := strings.Cut(strings.TrimSpace(part), "=")
		set := known[key]
		switch {
		case set == nil:
			return Spec{}, fmt.Errorf("simulated mesh %q: unknown key %q%s", text, key, suggestion(key, slices.Sorted(maps.Keys(known))))
		case !found:
			return Spec{}, fmt.Errorf("simulated mesh %q: %s has no value; type %s=…", text, key, key)
		case seen[key]:
			return Spec{}, fmt.Errorf("simulated mesh %q: %s is given twice", text, key)
		}
		seen[key] = true
		if err := set(&s, value); err != nil {
			return Spec{}, fmt.Errorf("simulated mesh %q: %s: %w", text, key, err)
		}
	}
	if !seen["namespaces"] {
		s.Namespaces = max(1, min(s.Workloads/5, 400))
	}
	if !seen["no-sidecar"] {
		s.NoSidecar = max(0, min(s.Workloads/20, s.Workloads-s.special()+s.NoSidecar))
	}
	if s.Ambient > s.Namespaces {
		return Spec{}, fmt.Errorf("simulated mesh %q: ambient is %d, more than the %d namespaces", text, s.Ambient, s.Namespaces)
	}
	if s.special() > s.Workloads {
		return Spec{}, fmt.Errorf("simulated mesh %q: single-replica, on-delete, no-sidecar and strict-pdbs come to %d, more than the %d workloads", text, s.special(), s.Workloads)
	}
	return s, nil
}

func (s Spec) special() int { return s.SingleReplica + s.OnDelete + s.NoSidecar + s.StrictPDBs }

// suggestion says which known key was meant, or which there are.
func suggestion(key string, known []string) string {
	best := diag.Nearest(key, known)
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known are " + strings.Join(known, ", ")
}
