package istioctl

import (
	"fmt"
	"time"

	"rutter.dev/rutter/builtins/istioctl/lib"
	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/manifest"
	"rutter.dev/rutter/runtime/value"
)

// installArgs are those of istioctl.manifest, and how its result is applied.
type installArgs struct {
	Version  value.Version  `star:"version" doc:"Istio version to install; the linked one if not given"`
	Profile  string         `star:"profile" default:"default" doc:"profile of the charts"`
	Set      map[string]any `star:"set" doc:"values by path, as for istioctl.manifest"`
	Files    []string       `star:"files" doc:"IstioOperator documents as YAML text"`
	Revision string         `star:"revision" doc:"revision of the control plane; none if not given"`
	Charts   string         `star:"charts" doc:"folder of another Istio release, whose charts are rendered"`
	Prune    bool           `star:"prune" default:"false" doc:"delete what an earlier install brought and this one does not, as for kube.apply"`
	Adopt    []string       `star:"adopt" doc:"field managers whose fields move to rutter, as for kube.apply"`
	Wait     time.Duration  `star:"wait" default:"10m" doc:"how long the workloads may take to become ready, all together; \"0s\" does not wait"`
}

func (a *installArgs) manifest() *manifestArgs {
	return &manifestArgs{Version: a.Version, Profile: a.Profile, Set: a.Set, Files: a.Files, Revision: a.Revision, Charts: a.Charts}
}

func installSpec(r *lib.Renderer) *builtin.Spec {
	return builtin.NewWrite(builtin.WriteDef[installArgs]{
		Name: "istioctl.install",
		Doc: `Installs or upgrades a control plane: istioctl.manifest and kube.apply in one.
The components go in one after the other, each ready before the next: CRDs,
istiod, webhooks, CNI, ztunnel, gateways. Nothing is forced: fields of another
manager are a conflict unless it is named in adopt. It can be interrupted
between any two objects, and resumed. What it will apply must be reviewed:
diff.live of the manifest with the same arguments, and approve().`,
		Example: `step("install", istioctl.install, version = "1.31.0", set = {"meshConfig.accessLogFile": "/dev/stdout"}, prune = True, adopt = ["istio-operator"])`,
		Returns: "struct(version, engine, applied, unchanged, pruned, left)",
		Effects: effect.ClassesOf(effect.Apply, effect.Delete),
		Plan: func(c *builtin.Call, a *installArgs) (*effect.Plan, error) {
			m, err := rendered(c, r, a.manifest())
			if err != nil {
				return nil, err
			}
			objs, err := m.Objects(c.Blobs)
			if err != nil {
				return nil, err
			}
			p, err := manifest.Plan(c.Ctx, c.Reader, objs, manifest.Options{Adopt: a.Adopt, Prune: a.Prune, Why: fmt.Sprintf("Istio %s", m.Version)})
			if err != nil {
				return nil, err
			}
			p.Notes = append(p.Notes, m.Warnings...)
			plan, err := planWith(p, installData{Version: m.Version, Engine: m.Engine})
			if err == nil && a.Wait > 0 {
				plan.Awaits = p.Waits[manifest.ControlPlane]
			}
			return plan, err
		},
		Drive: driveInstall,
	})
}

// installData is what driving needs besides the effects.
type installData struct {
	Version string `json:"version"`
	Engine  string `json:"engine"`
}

// installed is the value of istioctl.install.
type installed struct {
	Version   string   `json:"version"`
	Engine    string   `json:"engine"`
	Applied   []string `json:"applied"`
	Unchanged []string `json:"unchanged"`
	Pruned    []string `json:"pruned"`
	Left      []string `json:"left"`
}

func driveInstall(c *builtin.Call, s effect.Submitter, a *installArgs, p *effect.Plan) (any, error) {
	var d installData
	inner, err := splitPlan(p, &d)
	if err != nil {
		return nil, err
	}
	done, err := manifest.Drive(c, s, inner, manifest.DriveOptions{
		Adopt: a.Adopt, Wait: a.Wait,
		Began: func(stage manifest.Stage, effects int) {
			s.Progress(int(stage), int(manifest.Inventory), fmt.Sprintf("%s: %d objects", stage, effects))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("istio %s: %w", d.Version, err)
	}
	return &installed{Version: d.Version, Engine: d.Engine, Applied: done.Applied, Unchanged: done.Unchanged, Pruned: done.Pruned, Left: done.Left}, nil
}

// options are the arguments as the library takes them, with what the run knows.
func (a *manifestArgs) options(c *builtin.Call) lib.RenderOptions {
	return lib.RenderOptions{
		Knowledge: c.Run.Knowledge,
		Version:   a.Version.String(), Profile: a.Profile, Set: a.Set,
		Files: files(a.Files), Revision: a.Revision, ChartsDir: a.Charts,
	}
}
