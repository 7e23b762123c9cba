package restart

import (
	"fmt"
	"time"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
)

type soakArgs struct {
	Report   *Report       `star:"report,positional" doc:"what a restart returned: the workloads to watch"`
	Duration time.Duration `star:"duration" default:"5m" doc:"how long"`
	Health   []*Query      `star:"health" doc:"questions about the services, beside the policy's, asked meanwhile"`
}

func soakSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[soakArgs]{
		Name: "restart.soak", Returns: "None",
		Doc: `Watch restarted workloads for a while, and fail when one of them does not stay well.
A container that restarts or fails meanwhile, or a pod that is not ready at the
end, is an error that names it. Where the policy or health says what the services
must be like, they are judged at every interval (RUT014). core's pause only lets
time pass.`,
		Example: `step("soak", restart.soak, step("canary", restart.workloads, ["deploy/web"], namespace = "shop"), duration = "15m")`,
		Do: func(c *builtin.Call, a *soakArgs) (any, error) {
			if a.Duration <= 0 {
				return nil, diag.Usagef("restart.soak", "duration: got %s, want more than nothing", a.Duration)
			}
			return nil, soak(c, a.Report, a.Duration, asked(a.Health))
		},
	})
}

func soak(c *builtin.Call, r *Report, duration time.Duration, health []effect.Health) error {
	d := &driver{c: c, data: &planData{}, lim: limits{soak: duration, health: health}, wave: portion{Name: "soak"}, tell: c.Progress}
	for _, w := range r.Restarted {
		ref := cluster.Ref{Group: "apps", Version: "v1", Kind: w.Kind, Namespace: w.Namespace, Name: w.Name}
		if w.Kind == "Rollout" {
			ref.Group, ref.Version = "argoproj.io", "v1alpha1"
		}
		o, err := c.Reader.Get(c.Ctx, ref)
		if err != nil {
			return fmt.Errorf("restart.soak: %w", err)
		}
		sel, err := selectorOf(o)
		if err != nil {
			return err
		}
		d.done = append(d.done, &item{t: &target{Ref: ref, Selector: sel.String(), How: howRoll}, now: o})
	}
	return d.soak(d.done)
}
