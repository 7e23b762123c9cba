package restart

import (
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// Specs lists the builtins of the module restart.
func Specs() []*builtin.Spec {
	return []*builtin.Spec{wavesSpec(), outdatedSpec(), workloadsSpec(), controlPlaneSpec(), soakSpec(), querySpec(), obstaclesSpec()}
}

// Decoders rebuild the module's handles.
func Decoders() map[string]value.Decoder {
	return map[string]value.Decoder{wavesKind: decodeWaves, reportKind: decodeReport, queryKind: decodeQuery}
}

type wavesArgs struct {
	Canary  int            `star:"canary" default:"1" doc:"how many workloads go first, alone, and are verified before the others begin; 0 for none"`
	Then    value.Quantity `star:"then" default:"25%" doc:"the most workloads in flight after the canary, as a count or a share of all"`
	Barrier bool           `star:"barrier" default:"false" doc:"wait (and soak) after every such portion, instead of keeping as many in flight all the time"`
}

func wavesSpec() *builtin.Spec {
	return builtin.NewPure(builtin.PureDef[wavesArgs]{
		Name: "restart.waves", Returns: "waves",
		Doc: `In which portions workloads are restarted.
The canary goes first and is verified, and soaked if the restart has a soak.
After it, as many workloads as then allows are kept in flight until all are
done: waiting for the slowest of each portion would take about four times as
long. barrier asks for just that, where a soak after each portion is worth it.`,
		Example: `restart.waves(canary = 2, then = "10%")`,
		Do: func(_ *builtin.Call, a *wavesArgs) (any, error) {
			if a.Canary < 0 {
				return nil, diag.Usagef("restart.waves", "canary: got %d, want a count that is not negative", a.Canary)
			}
			if a.Then.N < 1 {
				return nil, diag.Usagef("restart.waves", "then: got %s, want at least 1 or 1%%", a.Then)
			}
			return &Waves{Canary: a.Canary, Then: a.Then, Barrier: a.Barrier}, nil
		},
	})
}

type outdatedArgs struct {
	Waves        *Waves        `star:"waves" doc:"portions; restart.waves() if not given"`
	Soak         time.Duration `star:"soak" default:"0s" doc:"how long a wave is watched before the next one begins"`
	Health       []*Query      `star:"health" doc:"questions about the services, beside the policy's: asked before each wave, while it rolls and while it soaks"`
	Limit        int           `star:"limit" default:"20" doc:"the most workloads in flight, whatever the waves say"`
	PerNamespace int           `star:"per_namespace" default:"4" doc:"the most workloads in flight in one namespace"`
	Timeout      time.Duration `star:"timeout" default:"10m" doc:"for one workload to be ready again; for each pod where pods are evicted one by one"`
	Namespaces   []string      `star:"namespaces" doc:"only these; all if not given"`
	Gateways     bool          `star:"gateways" default:"true" doc:"gateways too: they are data plane and run the old proxy until they are restarted"`
}

func outdatedSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[outdatedArgs]{
		Name: "restart.outdated", Returns: "restart_report",
		Doc: `Restart every workload whose proxies are not what injection would give them now.
Stale proxies are found by a census of all pods and restarted by owner:
Deployments, StatefulSets, DaemonSets and Argo Rollouts by an annotation of
their pod template; StatefulSets and DaemonSets that update OnDelete by
evicting their pods one at a time. Bare pods and those of Jobs are reported and
left alone. Disruption budgets are kept, though rolling restarts do not go
through the eviction API. Every restarted workload must come back ready and
with the proxy it was restarted for; the first that does not stops the call,
with what was restarted and what was not begun.`,
		Example: `step("data plane", restart.outdated, waves = restart.waves(canary = 1, then = "25%"), soak = "5m")`,
		Effects: []effect.Class{effect.Restart, effect.Eviction},
		Plan: func(c *builtin.Call, a *outdatedArgs) (*effect.Plan, error) {
			if err := a.limits().valid("restart.outdated", a.Limit); err != nil {
				return nil, err
			}
			wishes, skipped, err := outdated(c, a.Namespaces, a.Gateways)
			if err != nil {
				return nil, err
			}
			return newPlanner(c, a.Waves, a.Limit).asking(a.Health).plan(wishes, skipped)
		},
		Drive: func(c *builtin.Call, s effect.Submitter, a *outdatedArgs, p *effect.Plan) (any, error) {
			return drive(c, s, p, a.limits())
		},
	})
}

func (a *outdatedArgs) limits() limits {
	return limits{perNamespace: a.PerNamespace, timeout: a.Timeout, soak: a.Soak, health: asked(a.Health)}
}

func (l limits) valid(name string, limit int) error {
	switch {
	case limit < 1:
		return diag.Usagef(name, "limit: got %d, want at least 1", limit)
	case l.perNamespace < 1:
		return diag.Usagef(name, "per_namespace: got %d, want at least 1", l.perNamespace)
	case l.timeout <= 0:
		return diag.Usagef(name, "timeout: got %s, want more than nothing", l.timeout)
	}
	return nil
}

type workloadsArgs struct {
	Workloads    []starlark.Value `star:"workloads,positional,optional" doc:"names as kubectl takes them (deploy/web), or objects"`
	Namespace    string           `star:"namespace" doc:"of the names, or of what the selector finds"`
	Selector     string           `star:"selector" doc:"label selector of Deployments, StatefulSets and DaemonSets, instead of names"`
	Nodes        []string         `star:"nodes" doc:"only the pods on these nodes, of workloads that update OnDelete; all if not given"`
	Reason       string           `star:"reason" default:"asked for by the runbook" doc:"why, for the plan and the report"`
	Waves        *Waves           `star:"waves" doc:"portions; restart.waves() if not given"`
	Soak         time.Duration    `star:"soak" default:"0s" doc:"how long a wave is watched before the next one begins"`
	Health       []*Query         `star:"health" doc:"questions about the services, beside the policy's: asked before each wave, while it rolls and while it soaks"`
	Limit        int              `star:"limit" default:"20" doc:"the most workloads in flight, whatever the waves say"`
	PerNamespace int              `star:"per_namespace" default:"4" doc:"the most workloads in flight in one namespace"`
	Timeout      time.Duration    `star:"timeout" default:"10m" doc:"for one workload to be ready again; for each pod where pods are evicted one by one"`
}

func workloadsSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[workloadsArgs]{
		Name: "restart.workloads", Returns: "restart_report",
		Doc: `Restart named workloads, in waves and within disruption budgets.
They are restarted whether their proxies are outdated or not; restart.outdated
finds those that need it. With nodes, a DaemonSet that updates OnDelete is
restarted node by node: on one of them first, say, and watched there.`,
		Example: `step("restart web", restart.workloads, ["deploy/web", "sts/db"], namespace = "shop")`,
		Effects: []effect.Class{effect.Restart, effect.Eviction, effect.ControlPlane},
		Plan: func(c *builtin.Call, a *workloadsArgs) (*effect.Plan, error) {
			if err := a.limits().valid("restart.workloads", a.Limit); err != nil {
				return nil, err
			}
			wishes, err := named(c, a)
			if err != nil {
				return nil, err
			}
			return newPlanner(c, a.Waves, a.Limit).asking(a.Health).plan(wishes, nil)
		},
		Drive: func(c *builtin.Call, s effect.Submitter, a *workloadsArgs, p *effect.Plan) (any, error) {
			return drive(c, s, p, a.limits())
		},
	})
}

func (a *workloadsArgs) limits() limits {
	return limits{perNamespace: a.PerNamespace, timeout: a.Timeout, soak: a.Soak, health: asked(a.Health)}
}

type controlPlaneArgs struct {
	Manifest *manifest.Manifest `star:"manifest,positional,optional" doc:"what was applied: its version is what gateways must run"`
	Before   []*value.Object    `star:"before" doc:"ConfigMaps as they were before; without them, when they changed last is read from their managed fields"`
	Revision string             `star:"revision" doc:"only the control plane of this revision; all if not given"`
	Gateways bool               `star:"gateways" default:"true" doc:"gateways that run another proxy version than the manifest's, too"`
	Timeout  time.Duration      `star:"timeout" default:"10m" doc:"for one component to be ready again"`
}

func controlPlaneSpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[controlPlaneArgs]{
		Name: "restart.control_plane", Returns: "restart_report",
		Doc: `Restart those parts of the control plane that run with configuration from before.
A changed image or argument rolls istiod and the CNI DaemonSet by itself, so
most upgrades restart nothing here. What does not roll by itself is a component
whose ConfigMap changed while its pod template stayed: it is restarted, istiod
first, then CNI and ztunnel, then gateways. The report says for every other
component why it was left alone.`,
		Example: `step("control plane restart", restart.control_plane)`,
		Effects: []effect.Class{effect.Restart, effect.Eviction, effect.ControlPlane},
		Plan: func(c *builtin.Call, a *controlPlaneArgs) (*effect.Plan, error) {
			wishes, skipped, err := controlPlane(c, a)
			if err != nil {
				return nil, err
			}
			return newPlanner(c, nil, len(wishes)+1).plan(wishes, skipped)
		},
		Drive: func(c *builtin.Call, s effect.Submitter, a *controlPlaneArgs, p *effect.Plan) (any, error) {
			return drive(c, s, p, limits{perNamespace: len(p.Effects) + 1, timeout: a.Timeout})
		},
	})
}

func newPlanner(c *builtin.Call, w *Waves, limit int) *planner {
	if w == nil {
		w = defaultWaves()
	}
	return &planner{c: c, waves: w, limit: limit}
}

// asking adds the questions that the host asks with every effect.
func (p *planner) asking(qs []*Query) *planner {
	p.health = asked(qs)
	return p
}
