package istioctl

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/mesh"
	"rutter.dev/rutter/runtime/value"
)

type precheckArgs struct {
	Version   value.Version `star:"version" doc:"Istio version to upgrade to; the run's target if not given"`
	Revision  string        `star:"revision" doc:"revision to install beside what is there; in place if not given"`
	Namespace string        `star:"namespace" doc:"only workloads in it; all if not given"`
}

// prechecked is the value of istioctl.precheck.
type prechecked struct {
	OK         bool     `json:"ok"` // no errors
	Target     string   `json:"target"`
	Kubernetes string   `json:"kubernetes"`
	Errors     []string `json:"errors"`
	Warnings   []string `json:"warnings"`
	Messages   []string `json:"messages"` // everything, the library's information too
}

func precheckSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[precheckArgs]{
		Name: "istioctl.precheck", Returns: "struct(ok, target, kubernetes, errors, warnings, messages)",
		Doc: `Look whether the cluster is fit for an Istio version.
All that istioctl x precheck looks at (the server's minimum version, Gateway API
versions, alpha annotations), and what it does not:
both ends of Kubernetes support, the version path and skew, the present control
plane's health, CNI and its race with pods, the agents of nodes, roots of trust
that differ, injectors that overlap, sidecars that would be injected twice, gateways that end before their load balancer
knows, retired registries. Findings are returned, not raised;
but nothing is upgraded in a run whose precheck has errors (RUT004). That
istioctl install might not create all that it could is no error here: what the
run itself may not do, a dry-run finds before its first change.`,
		Example: `istioctl.precheck(version = "1.31.0").errors`,
		Do: func(c *builtin.Call, a *precheckArgs) (any, error) {
			target := a.Version.Semver()
			if target == nil {
				v, err := semver.StrictNewVersion(c.Run.To)
				if err != nil {
					return nil, diag.Usagef("istioctl.precheck", "version: not given, and the run has no target version")
				}
				target = v
			}
			p, err := runPrecheck(c, a, target)
			if err != nil {
				return nil, err
			}
			c.Note(effect.Fact{Precheck: &effect.Precheck{
				Target: p.Target, At: c.Env.Clock.Now(), Errors: p.Errors, Warnings: p.Warnings,
			}})
			return p, nil
		},
	})
}

func runPrecheck(c *builtin.Call, a *precheckArgs, target *semver.Version) (*prechecked, error) {
	p := &prechecked{Target: target.String(), Errors: []string{}, Warnings: []string{}, Messages: []string{}}
	k, err := knowledge.OrDefault(c.Run.Knowledge)
	if err != nil {
		return nil, err
	}
	var pods lib.Pods
	now, err := look(c.Ctx, c.Reader, k, true, pods.Add)
	if err != nil {
		return nil, err
	}
	p.Kubernetes = now.Kubernetes
	cr, err := configReader(c.Reader)
	if err != nil {
		return nil, err
	}
	found, err := lib.Precheck(c.Ctx, cr.ReadOnlyConfig(), lib.PrecheckOptions{Namespace: a.Namespace, From: oldestMinor(now), Reader: c.Reader, Pods: &pods})
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		if m.Code == noPermission {
			p.add(lib.LevelInfo, sentence(m)+"; istioctl install asks for it")
			continue
		}
		p.add(m.Level, sentence(m))
	}
	k8s, err := c.Reader.Version(c.Ctx)
	if err != nil {
		return nil, err
	}
	p.kubernetes(k, k8s, target)
	p.path(k, now, target, a.Revision)
	p.health(now)
	p.registries(now)
	if err := p.cni(c); err != nil {
		return nil, err
	}
	hazards, err := mesh.Hazards(c.Ctx, c.Reader, k, target, now.proxies)
	if err != nil {
		return nil, err
	}
	for _, h := range hazards {
		p.add(lib.LevelError, h.Problem+"; "+h.Next)
	}
	p.OK = len(p.Errors) == 0
	return p, nil
}

// noPermission is the library's code for what istioctl install may not do:
// create any object of the kinds that are in some manifest. An upgrade changes
// certain objects, and may be allowed just that; a dry-run of each by the API
// server tells, before the first change (RUT006).
const noPermission = "IST0141"

// add files one finding.
func (p *prechecked) add(level, text string) {
	p.Messages = append(p.Messages, level+": "+text)
	switch level {
	case lib.LevelError:
		p.Errors = append(p.Errors, text)
	case lib.LevelWarning:
		p.Warnings = append(p.Warnings, text)
	}
}

// oldestMinor is the minor version ("1.30") that is upgraded from.
func oldestMinor(now *versions) string {
	var names []string
	for _, cp := range now.ControlPlane {
		names = append(names, cp.Version)
	}
	if vs := parsed(names); len(vs) > 0 {
		return fmt.Sprintf("%d.%d", vs[0].Major(), vs[0].Minor())
	}
	return ""
}

// kubernetes holds the server against the support table; the library knows
// only the minimum.
func (p *prechecked) kubernetes(k *knowledge.Base, k8s cluster.VersionInfo, target *semver.Version) {
	supported, known := mesh.SupportedKubernetes(k, target)
	switch {
	case !known:
		p.add(lib.LevelWarning, fmt.Sprintf("Kubernetes: no table says which versions Istio %s supports; the server is %s", target, k8s.Git))
	case k8s.Major != 1 || !supported.Contains(k8s.Minor):
		p.add(lib.LevelError, fmt.Sprintf("Kubernetes %s: Istio %d.%d supports %s", k8s.Git, target.Major(), target.Minor(), supported))
	}
}

// path judges the way from each control plane that the upgrade would replace,
// and the proxies that the target would have to serve.
func (p *prechecked) path(k *knowledge.Base, now *versions, target *semver.Version, revision string) {
	mode := mesh.InPlace
	if revision != "" {
		mode = mesh.ByRevision
	}
	if len(now.ControlPlane) == 0 {
		p.add(lib.LevelError, "no control plane is installed: there is nothing to upgrade")
	}
	for _, cp := range now.ControlPlane {
		from, err := semver.StrictNewVersion(cp.Version)
		if err != nil {
			p.add(lib.LevelWarning, fmt.Sprintf("control plane %s in %s: its version cannot be told from its image %s", cp.Name, cp.Namespace, cp.Image))
			continue
		}
		if err := mesh.CheckPath(k, from, target, mode); err != nil {
			p.add(lib.LevelError, err.Error())
		}
	}
	seen := map[string]bool{}
	for _, skew := range now.Skew {
		seen[skew] = true
		p.add(lib.LevelWarning, "skew now: "+skew)
	}
	for v, n := range inOrder(now.DataPlane) {
		if err := mesh.CheckSkew(k, target, v, mode); err != nil && !seen[err.Error()] {
			p.add(lib.LevelError, fmt.Sprintf("%d proxies would be out of skew: %s", n, err))
		}
	}
}

// health: an upgrade of something broken hides what broke it (GUIDE §4 row 19).
func (p *prechecked) health(now *versions) {
	for _, cp := range now.ControlPlane {
		if !cp.Ready {
			p.add(lib.LevelError, fmt.Sprintf("control plane %s in %s is not ready: %s", cp.Name, cp.Namespace, cp.Why))
		}
	}
}

// registries: with 1.31 Istio left gcr.io (GUIDE §2 row 19).
func (p *prechecked) registries(now *versions) {
	for _, cp := range now.ControlPlane {
		for _, old := range []string{"gcr.io/istio-release/", "gcr.io/istio-testing/"} {
			if strings.HasPrefix(cp.Image, old) {
				p.add(lib.LevelWarning, fmt.Sprintf("control plane %s in %s runs %s: that registry is retired; set hub to one that is not", cp.Name, cp.Namespace, cp.Image))
			}
		}
	}
}
