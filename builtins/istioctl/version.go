package istioctl

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/mesh"
)

type versionArgs struct {
	DataPlane bool `star:"data_plane" default:"true" doc:"count the proxies of all pods too; False is quick on a large cluster"`
}

// versions is the value of istioctl.version.
type versions struct {
	Client       string         `json:"client"` // of the linked library
	ControlPlane []plane        `json:"control_plane"`
	DataPlane    map[string]int `json:"data_plane"` // proxies by version
	Revisions    map[string]int `json:"revisions"`  // proxies by the revision that injected them
	// Pinned are the proxies by version whose pods ask for their image themselves
	// (sidecar.istio.io/proxyImage): a restart brings the same one again.
	Pinned     map[string]int `json:"pinned"`
	Proxies    int            `json:"proxies"`
	Skew       []string       `json:"skew"` // what breaks Istio's rules; empty is well
	Oldest     string         `json:"oldest"`
	Newest     string         `json:"newest"`
	Kubernetes string         `json:"kubernetes"`
	Tags       []mesh.Tag     `json:"tags"`
	// Outdated are the workloads whose proxies injection would make otherwise
	// now, as restart.outdated takes them.
	Outdated []manifest.Outdated `json:"outdated"`
	planes   []mesh.ControlPlane
	proxies  []mesh.Proxy
}

type plane struct {
	Revision  string `json:"revision"`
	Version   string `json:"version"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Image     string `json:"image"`
	Ready     bool   `json:"ready"`
	Why       string `json:"why"`
}

func versionSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[versionArgs]{
		Name: "istioctl.version", Returns: "struct(client, control_plane, data_plane, revisions, pinned, proxies, skew, oldest, newest, kubernetes, tags, outdated)",
		Doc: `The versions in the mesh: every control plane by revision, and the proxies of all pods.
istioctl version sees only proxies that are connected to one revision; this is
a census of pods, so that it sees those of every revision, and those that lost
their control plane. skew says which of Istio's rules the mix breaks, outdated
pinned counts the proxies whose pods ask for an image of their own, and outdated
which workloads have proxies that injection would make otherwise now:
struct(workload, namespace, name, kind, pods, from, to, reason).`,
		Example: `istioctl.version().data_plane`,
		Do: func(c *builtin.Call, a *versionArgs) (any, error) {
			k, err := knowledge.OrDefault(c.Run.Knowledge)
			if err != nil {
				return nil, err
			}
			v, err := look(c.Ctx, c.Reader, k, a.DataPlane, nil)
			if err != nil || !a.DataPlane {
				return v, err
			}
			return v, v.findOutdated(c.Ctx, c.Reader)
		},
	})
}

// look takes the census, and calls each, if there is one, for the pods that it sees.
func look(ctx context.Context, r cluster.Reader, k *knowledge.Base, dataPlane bool, each func(pod *cluster.Object)) (*versions, error) {
	v := &versions{
		Client: lib.LinkedVersion, ControlPlane: []plane{}, DataPlane: map[string]int{}, Revisions: map[string]int{}, Pinned: map[string]int{},
		Skew: []string{}, Tags: []mesh.Tag{}, Outdated: []manifest.Outdated{},
	}
	k8s, err := r.Version(ctx)
	if err != nil {
		return nil, err
	}
	v.Kubernetes = k8s.Git
	if v.planes, err = mesh.ControlPlanes(ctx, r); err != nil {
		return nil, err
	}
	for _, p := range v.planes {
		v.ControlPlane = append(v.ControlPlane, plane{p.Revision, p.Version, p.Namespace, p.Name, p.Image, p.Ready, p.Why})
	}
	tags, err := mesh.RevisionTags(ctx, r)
	if err != nil {
		return nil, err
	}
	v.Tags = append(v.Tags, tags...)
	if dataPlane {
		proxies, err := mesh.Census(ctx, r, mesh.CensusOptions{Each: each})
		if err != nil {
			return nil, err
		}
		for _, p := range proxies {
			v.DataPlane[cmp.Or(p.Version, "unknown")]++
			v.Revisions[cmp.Or(p.Revision, mesh.DefaultRevision)]++
			if p.Override != "" {
				v.Pinned[cmp.Or(p.Version, "unknown")]++
			}
		}
		v.Proxies, v.proxies = len(proxies), proxies
	}
	v.judge(k)
	return v, nil
}

func (v *versions) findOutdated(ctx context.Context, r cluster.Reader) error {
	found, err := mesh.OutdatedOf(ctx, r, v.planes, v.proxies)
	if err != nil {
		return err
	}
	for _, w := range found {
		v.Outdated = append(v.Outdated, manifest.OutdatedOf(w))
	}
	return nil
}

// judge fills in what follows from the versions.
func (v *versions) judge(k *knowledge.Base) {
	data := parsed(slices.Collect(maps.Keys(v.DataPlane)))
	if len(data) > 0 {
		v.Oldest, v.Newest = data[0].String(), data[len(data)-1].String()
	}
	var names []string
	for _, p := range v.planes {
		names = append(names, p.Version)
	}
	planes := parsed(names)
	if len(planes) == 0 {
		if v.Proxies > 0 {
			v.Skew = append(v.Skew, fmt.Sprintf("%d proxies and no control plane", v.Proxies))
		}
		return
	}
	mode := mesh.InPlace
	if len(v.planes) > 1 {
		mode = mesh.ByRevision
	}
	// Of several control planes the newest has to bear the oldest proxy, and
	// none may be passed by the newest proxy.
	newest := planes[len(planes)-1]
	for _, d := range data {
		if err := mesh.CheckSkew(k, newest, d, mode); err != nil {
			v.Skew = append(v.Skew, err.Error())
		}
	}
}

// parsed are the texts that are versions, ascending.
func parsed(texts []string) []*semver.Version {
	var out []*semver.Version
	for _, t := range texts {
		if sv, err := semver.StrictNewVersion(t); err == nil {
			out = append(out, sv)
		}
	}
	slices.SortFunc(out, func(a, b *semver.Version) int { return a.Compare(b) })
	return out
}
