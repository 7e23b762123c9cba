// Package failures is the catalogue: the failures that real upgrades met, each
// as a simulated mesh on which rutter's own runbooks stop before the first write,
// or at the canary, from where everything goes back as it was; and meshes that are
// unusual and well, which none of it may hold up.
//
// A failure is a file in testdata/failures, a mesh one in testdata/healthy; what
// such a file may hold says the type scene. CATALOGUE.md is made from them:
// go test ./tests/failures -run TestCatalogue -update.
package failures

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/cmd/modules"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/host"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/seal"
	"rutter.dev/rutter/runtime/sim"
	"rutter.dev/rutter/runtime/sim/controllers"
	"rutter.dev/rutter/runtime/sim/mesh"
	"rutter.dev/rutter/stdlib"
)

const (
	from = "1.30.3"
	to   = lib.LinkedVersion
)

// TestMain lets garbage lie longer: simulated clusters make much of it and live
// shortly.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// lab is what all tests share: the host, and each mesh as it was made.
type lab struct {
	host     *host.Host
	renderer *lib.Renderer
	sealer   *seal.Sealer

	mu     sync.Mutex
	meshes map[string]func() (*sim.Cluster, error)
}

var theLab = sync.OnceValues(newLab)

func laboratory(t testing.TB) *lab {
	t.Helper()
	l, err := theLab()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newLab() (*lab, error) {
	if err := lib.Setup(); err != nil {
		return nil, err
	}
	renderer := lib.NewRenderer("")
	set, err := modules.Set(renderer)
	if err != nil {
		return nil, err
	}
	sealer, err := seal.Ephemeral()
	return &lab{
		host:     &host.Host{Builtins: set, Decoders: modules.Decoders(), Stdlib: stdlib.FS, Version: "test", Cache: loader.NewCache()},
		renderer: renderer, sealer: sealer, meshes: map[string]func() (*sim.Cluster, error){},
	}, err
}

// elsewhere are CRDs that the organization of most meshes here installs by
// itself: they are nine tenths of what an upgrade reads and writes.
var elsewhere = []string{
	"authorizationpolicies.security.istio.io", "destinationrules.networking.istio.io", "envoyfilters.networking.istio.io",
	"gateways.networking.istio.io", "requestauthentications.security.istio.io", "serviceentries.networking.istio.io",
	"sidecars.networking.istio.io", "telemetries.telemetry.istio.io", "virtualservices.networking.istio.io",
	"workloadentries.networking.istio.io", "workloadgroups.networking.istio.io",
}

// base says from what a world is made before its fixture. The zero value is a
// small mesh of sidecars with a gateway.
type base struct {
	Mesh       string         `json:"mesh"`       // as on the command line, without "mesh,istio=…"
	Profile    string         `json:"profile"`    // default: "default"
	Values     map[string]any `json:"values"`     // of the installation, which an upgrade keeps
	CRDs       bool           `json:"crds"`       // with all of Istio's CRDs
	Kubernetes string         `json:"kubernetes"` // "v1.34.0"
	// Listening: istiods listen, and say of each proxy whether it took its
	// configuration; the cluster is reached over a socket then.
	Listening bool `json:"listening"`
}

const small = "workloads=5,namespaces=2,nodes=2"

func (b base) withDefaults() base {
	if b.Mesh == "" {
		b.Mesh = small
	}
	if b.Profile == "" {
		b.Profile = "default"
	}
	return b
}

// set are the values that the mesh was installed with, which its upgrade keeps.
func (b base) set() map[string]any {
	out := map[string]any{}
	maps.Copy(out, b.Values)
	if !b.CRDs {
		var left []any
		for _, name := range elsewhere {
			left = append(left, name)
		}
		out["values.base.excludedCRDs"] = left
	}
	return out
}

// cluster is a clone of the mesh.
func (l *lab) cluster(b base) (*sim.Cluster, error) {
	b = b.withDefaults()
	key := fmt.Sprint(b)
	l.mu.Lock()
	once := l.meshes[key]
	if once == nil {
		once = sync.OnceValues(func() (*sim.Cluster, error) { return l.build(b, mesh.NewIstiods()) })
		l.meshes[key] = once
	}
	l.mu.Unlock()
	c, err := once()
	if err != nil {
		return nil, err
	}
	return c.Clone(), nil
}

func (l *lab) build(b base, istiods *mesh.Istiods) (*sim.Cluster, error) {
	text := "mesh,istio=" + from + "," + b.Mesh
	if !b.CRDs {
		text += ",without-crds=" + strings.Join(elsewhere, "+")
	}
	spec, err := mesh.Parse(text)
	if err != nil {
		return nil, err
	}
	r, err := l.renderer.Render(context.Background(), lib.RenderOptions{Profile: b.Profile, Revision: spec.Revision, Set: b.set()})
	if err != nil {
		return nil, err
	}
	c, err := sim.New(sim.Options{
		Seed: spec.Seed, KubernetesVersion: b.Kubernetes, Injector: lib.NewInjector(), InjectOnLoad: true,
		Controllers: slices.Concat(controllers.All(), istiods.Controllers(), []sim.Controller{sickness{}}),
	})
	if err != nil {
		return nil, err
	}
	if err := mesh.Populate(c, mesh.Build(spec, mesh.Retag(r.Objects, to, from))); err != nil {
		return nil, err
	}
	c.Advance(settle)
	return c, nil
}

// settle is how long the controllers get to come to rest.
const settle = 5 * time.Minute

// admin is a client of somebody else: its requests are no part of what is judged.
func admin(c *sim.Cluster) (*cluster.Client, error) {
	cfg := c.Config()
	cfg.Transport = asAdmin{cfg.Transport}
	return cluster.New(cfg, "sim", c.Clock(), cluster.ClientOptions{})
}

type asAdmin struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (a asAdmin) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", sim.AdminAgent)
	return a.next.RoundTrip(r)
}

// objects reads YAML; none where there is no text.
func objects(t testing.TB, text string) []*unstructured.Unstructured {
	t.Helper()
	if text == "" {
		return nil
	}
	all, err := manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
