package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/mesh"
)

var versionPath = &Gate{
	Code: VersionPath, Name: "version-path",
	Rationale: "Istio supports one minor at a time in place and two by revision, never a downgrade, and each minor a range of Kubernetes versions. istioctl knows only the minimum, and goes on with a warning.",
	Source:    "istio.io: upgrade, supported releases; GUIDE §3",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		version, image := bringsVersion(e)
		var out []Finding
		if image != "" && version == "" {
			out = append(out, block(fmt.Sprintf("which Istio it brings is not known: its image is %s", image),
				"an image whose tag names the version, or a label "+mesh.LabelAppVersion, "")...)
		}
		if version != "" && run.To != "" && version != run.To {
			out = append(out, block(fmt.Sprintf("it brings Istio %s, the run's target is %s", version, run.To),
				"the target's own image", "render the manifest for "+run.To)...)
		}
		target := run.To
		if target == "" {
			target = version
		}
		if target == "" {
			return out, nil
		}
		to, err := semver.NewVersion(target)
		if err != nil {
			return nil, fmt.Errorf("target version %q: %w", target, err)
		}
		if run.From != "" && !run.Rollback { // a rollback's path is the upgrade's, the other way
			from, err := semver.NewVersion(run.From)
			if err != nil {
				return nil, fmt.Errorf("installed version %q: %w", run.From, err)
			}
			k, err := knowledge.OrDefault(run.Knowledge)
			if err != nil {
				return nil, err
			}
			if err := mesh.CheckPath(k, from, to, modeOf(e)); err != nil {
				out = append(out, block(err.Error(), "a path that Istio supports", "")...)
			}
		}
		if version == "" {
			return out, nil // the server's version is asked for once, with istiod itself
		}
		found, err := kubernetesSupported(ctx, r, run, to)
		return append(out, found...), err
	},
}

func kubernetesSupported(ctx context.Context, r cluster.Reader, run *Run, to *semver.Version) ([]Finding, error) {
	k, err := knowledge.OrDefault(run.Knowledge)
	if err != nil {
		return nil, err
	}
	supported, known := mesh.SupportedKubernetes(k, to)
	if !known {
		return []Finding{{Verdict: Warn, Problem: fmt.Sprintf("which Kubernetes versions Istio %s supports is not known to this rutter", to), Next: "give a file of what is known of it with --knowledge, or use a newer rutter"}}, nil
	}
	v, err := r.Version(ctx)
	if err != nil {
		return nil, err
	}
	if !supported.Contains(v.Minor) {
		return block(fmt.Sprintf("Kubernetes %s is outside of what Istio %s supports", v.Git, to), "Kubernetes "+supported.String(), "upgrade Kubernetes first"), nil
	}
	return nil, nil
}

// modeOf: a named revision is installed beside the old one, so it may jump two.
// Only istiod itself is one or the other: definitions are shared by old and new,
// and accounts and rights bear no label of their revision.
func modeOf(e *effect.Effect) mesh.Mode {
	if !brings(e) {
		return mesh.ByRevision
	}
	if o := e.Intended(); o != nil {
		if rev := o.GetLabels()[mesh.LabelRev]; rev != "" && rev != mesh.DefaultRevision {
			return mesh.ByRevision
		}
	}
	return mesh.InPlace
}

// bringsVersion is the Istio version of the discovery container that the
// effect would put into the cluster, and the container's image; both are "" for
// any other effect, and for one that leaves an image without a version alone.
func bringsVersion(e *effect.Effect) (version, image string) {
	o := e.Intended()
	if o == nil || e.Ref.Kind != "Deployment" {
		return "", ""
	}
	image = discoveryImage(o)
	if image == "" {
		return "", ""
	}
	version = mesh.ImageVersion(image)
	if version == "" { // a digest or a private tag, as mesh.ControlPlanes reads it
		version = labelledVersion(o)
	}
	if version == "" && e.Before != nil && discoveryImage(e.Before) == image {
		return "", ""
	}
	return version, image
}

// brings reports whether an effect puts a control plane into the cluster.
func brings(e *effect.Effect) bool {
	_, image := bringsVersion(e)
	return image != ""
}

func discoveryImage(o *cluster.Object) string {
	spec, _ := o.Object["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	pod, _ := template["spec"].(map[string]any)
	containers, _ := pod["containers"].([]any)
	for _, c := range containers {
		if m, ok := c.(map[string]any); ok && m["name"] == "discovery" {
			image, _ := m["image"].(string)
			return image
		}
	}
	return ""
}

// labelledVersion: istioctl writes app.kubernetes.io/version 1.0.0 from
// unreleased charts, which says nothing.
func labelledVersion(o *cluster.Object) string {
	for _, k := range []string{mesh.LabelOperator, mesh.LabelAppVersion} {
		v := o.GetLabels()[k]
		if v == "1.0.0" {
			continue
		}
		if _, err := semver.StrictNewVersion(strings.TrimPrefix(v, "v")); err == nil {
			return strings.TrimPrefix(v, "v")
		}
	}
	return ""
}

var controlPlaneReady = &Gate{
	Code: ControlPlaneReady, Name: "control-plane-ready",
	Rationale: "A pod that restarts while its control plane is not there comes up without a sidecar, or with none of its configuration. The data plane follows the control plane, never leads it.",
	Source:    "Istio's skew rule: the data plane is never ahead; GUIDE §3 and §4 rows 1, 2",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if run.Forecast && slices.ContainsFunc(run.Earlier, run.Seen.brings) {
			return []Finding{{Verdict: Pass, Problem: "judged again once the control plane that this call brings is there"}}, nil
		}
		planes, err := run.Seen.controlPlanes(ctx, r)
		if err != nil {
			return nil, err
		}
		var out []Finding
		found := false
		for _, p := range planes {
			if run.To != "" && p.Version != run.To || p.Replicas == 0 {
				continue // what is scaled to nothing serves nobody, though nothing is wrong with it
			}
			found = true
			if !p.Ready && run.Forecast && slices.ContainsFunc(run.Awaits, func(r cluster.Ref) bool { return r.ID() == p.Ref.ID() }) {
				out = append(out, Finding{Verdict: Pass, Problem: "judged again once this call has waited for " + p.Ref.String()})
			} else if !p.Ready {
				out = append(out, block(fmt.Sprintf("its control plane %s is not ready: %s", p.Ref, p.Why), "a control plane that is ready", fmt.Sprintf("kubectl -n %s describe deploy %s", p.Namespace, p.Name))...)
			}
		}
		if !found {
			want := "a control plane"
			if run.To != "" {
				want += " of Istio " + run.To
			}
			out = append(out, block("there is no such control plane yet", want+" before the data plane is touched", "upgrade the control plane in an earlier step")...)
		}
		return out, nil
	},
}
