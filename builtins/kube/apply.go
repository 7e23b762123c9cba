package kube

import (
	"time"

	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
)

type applyArgs struct {
	Manifest  starlark.Value `star:"manifest,positional" doc:"rendered manifest, object, list of objects, or YAML text"`
	Prune     bool           `star:"prune" default:"false" doc:"delete what an earlier manifest of the same inventory brought and this one does not"`
	Wait      time.Duration  `star:"wait" default:"10m" doc:"how long the workloads may take to become ready, all together; \"0s\" does not wait"`
	Adopt     []string       `star:"adopt" doc:"field managers whose fields move to rutter in every object that changes; what they set and the manifest lacks is dropped"`
	Namespace string         `star:"namespace" doc:"namespace of namespaced objects that name none"`
	Inventory string         `star:"inventory" doc:"name of the record of what belongs together, for prune; Istio installs have one by revision"`
}

func applySpec() *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[applyArgs]{
		Name: "kube.apply",
		Doc: "Applies a manifest by server-side apply, in the order in which its objects need one another.\n" +
			"CRDs come first and must be established, then namespaces, accounts and configuration, then istiod, which must be ready before the webhooks that call it, " +
			"then the CNI, ztunnel, gateways and other workloads, then custom resources; deletions come last, in reverse order. " +
			"Objects that the API server's dry-run leaves unchanged are not sent.\n" +
			"prune takes away what an earlier manifest brought: by the inventory (ConfigMap rutter-inventory-NAME), which is seeded from install and Helm labels the first time. " +
			"It never deletes CRDs, namespaces, Secrets, objects of another revision, or revision tags.",
		Example: `step("control plane", kube.apply, manifest, prune = True, adopt = ["istio-operator"], wait = "10m")`,
		Returns: "object with applied, unchanged, pruned, left",
		Effects: effect.ClassesOf(effect.Apply, effect.Delete),
		Plan:    planApply,
		Drive:   driveApply,
	})
}

func planApply(c *builtin.Call, a *applyArgs) (*effect.Plan, error) {
	objs, err := manifest.From(a.Manifest, c.Blobs)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: "manifest", Err: err}
	}
	planned, err := manifest.Plan(c.Ctx, c.Reader, objs, manifest.Options{
		Adopt: a.Adopt, Prune: a.Prune, Namespace: a.Namespace, Inventory: a.Inventory,
	})
	if err != nil {
		return nil, err
	}
	p, err := planned.EffectPlan()
	if err == nil && a.Wait > 0 {
		p.Awaits = planned.Waits[manifest.ControlPlane]
	}
	return p, err
}

func driveApply(c *builtin.Call, s effect.Submitter, a *applyArgs, p *effect.Plan) (any, error) {
	done, err := manifest.Drive(c, s, p, manifest.DriveOptions{Adopt: a.Adopt, Wait: a.Wait})
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"applied": names(done.Applied), "unchanged": names(done.Unchanged), "pruned": names(done.Pruned), "left": names(done.Left),
	}, nil
}

func names(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}
