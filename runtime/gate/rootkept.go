package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/mesh"
)

var rootKept = &Gate{
	Code: RootKept, Name: "root-kept",
	Rationale: "A proxy trusts the root that it was started with. Where an upgrade brings another CA, proxies that were restarted and proxies that were not no longer talk to each other, and a rollback parts them once more. A CA is rotated in a run of its own, with both roots trusted meanwhile.",
	Source:    "istio.io: plug in CA certificates; GUIDE §4 rows 15 (istio#47650, #46600) and 16 (istio#44932)",
	Before: func(ctx context.Context, r cluster.Reader, run *Run, e *effect.Effect) ([]Finding, error) {
		if run.To == "" || run.Rollback || e.OwnersOnly() {
			return nil, nil // no upgrade, or the way back from one
		}
		if e.Ref.Kind == "Secret" {
			return caWritten(e)
		}
		w := world{ctx, r, run}
		before, err := predecessor(w, e)
		if err != nil || before == nil || e.Verb == effect.Delete {
			return nil, err // an istiod that goes takes no CA along
		}
		after := e.Intended()
		if after == nil {
			return nil, fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
		}
		return trustChanged(e.Ref, before, after)
	},
}

const (
	oneRoot = "an upgrade that leaves the mesh its root of trust"
	rotate  = "leave the CA as it is; rotate it in a run of its own, with both roots trusted until everything was restarted"
)

// caWritten judges a write of a Secret that istiod signs with.
func caWritten(e *effect.Effect) ([]Finding, error) {
	if e.Ref.Name != "cacerts" && e.Ref.Name != "istio-ca-secret" {
		return nil, nil
	}
	if e.Verb != effect.Delete && e.Before != nil {
		after := e.Intended()
		if after == nil {
			return nil, fmt.Errorf("what the %s makes of %s is not known", e.Verb, e.Ref)
		}
		if reflect.DeepEqual(e.Before.Object["data"], after.Object["data"]) {
			return nil, nil
		}
	}
	return block("it holds the CA of the mesh, which an upgrade must not change", oneRoot, rotate), nil
}

// trust says where an object decides what the mesh trusts: nil for objects that
// do not.
func trust(ref cluster.Ref) func(o *cluster.Object) (map[string]any, error) {
	switch {
	case ref.Kind == deploymentKind.Kind:
		return istiodTrust
	case ref.Kind == "ConfigMap" && strings.HasPrefix(ref.Name, "istio-sidecar-injector"):
		return injectorTrust
	case ref.Kind == "ConfigMap" && (ref.Name == "istio" || strings.HasPrefix(ref.Name, "istio-")):
		return meshTrust
	}
	return nil
}

// predecessor is what an object decides anew: itself as it is, or for a revision
// that is installed beside another the other's; nil where there is none.
func predecessor(w world, e *effect.Effect) (*cluster.Object, error) {
	if trust(e.Ref) == nil || e.Before != nil {
		return e.Before, nil
	}
	planes, err := w.run.Seen.controlPlanes(w.ctx, w.r)
	if err != nil {
		return nil, err
	}
	for _, p := range planes {
		ref := e.Ref
		ref.Namespace = p.Namespace
		switch {
		case p.Namespace != e.Ref.Namespace:
			continue
		case ref.Kind == deploymentKind.Kind && !brings(e):
			return nil, nil
		case ref.Kind == deploymentKind.Kind:
			ref = p.Ref
		case strings.HasPrefix(ref.Name, "istio-sidecar-injector"):
			ref.Name = ofRevision("istio-sidecar-injector", p.Revision)
		case ref.Name == ofRevision("istio", e.Intended().GetLabels()[mesh.LabelRev]):
			ref.Name = ofRevision("istio", p.Revision)
		default:
			return nil, nil // another ConfigMap of Istio's
		}
		if o, err := w.get(ref); err != nil || o != nil {
			return o, err
		}
	}
	return nil, nil
}

func ofRevision(name, revision string) string {
	if revision == "" || revision == mesh.DefaultRevision {
		return name
	}
	return name + "-" + revision
}

// trustChanged compares what two objects decide.
func trustChanged(ref cluster.Ref, before, after *cluster.Object) ([]Finding, error) {
	read := trust(ref)
	if read == nil {
		return nil, nil
	}
	was, err := read(before)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cluster.RefOf(before), err)
	}
	now, err := read(after)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	var changed []string
	for _, key := range sortedKeys(was, now) {
		if !reflect.DeepEqual(was[key], now[key]) {
			changed = append(changed, fmt.Sprintf("%s: %v -> %v", key, said(was[key]), said(now[key])))
		}
	}
	if len(changed) == 0 {
		return nil, nil
	}
	return block("it changes whom the mesh trusts: "+strings.Join(changed, ", "), oneRoot, rotate), nil
}

func sortedKeys(ms ...map[string]any) []string {
	var out []string
	for _, m := range ms {
		for k := range m {
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	slices.Sort(out)
	return out
}

// said is a value in a few words; certificates are not told.
func said(v any) string {
	s := fmt.Sprint(v)
	if v == nil || s == "" {
		return "not set"
	}
	if len(s) > 60 || strings.Contains(s, "\n") {
		return "another"
	}
	return s
}

// istiodTrust are the variables of istiod that choose its CA (pilot/pkg/features
// and pilot/cmd of istio/istio).
func istiodTrust(o *cluster.Object) (map[string]any, error) {
	out := map[string]any{}
	containers, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		m, _ := c.(map[string]any)
		env, _ := m["env"].([]any)
		for _, x := range env {
			v, _ := x.(map[string]any)
			name, _ := v["name"].(string)
			if m["name"] == "discovery" && slices.Contains([]string{"CA_ADDR", "EXTERNAL_CA", "ENABLE_CA_SERVER", "K8S_SIGNER", "PILOT_CERT_PROVIDER", "ROOT_CA_DIR"}, name) {
				out[name] = v["value"]
			}
		}
	}
	return out, nil
}

// injectorTrust are the values by which proxies find their CA.
func injectorTrust(o *cluster.Object) (map[string]any, error) {
	text, _, err := unstructured.NestedString(o.Object, "data", "values")
	if err != nil || text == "" {
		return nil, err
	}
	var values struct {
		Global struct {
			CAAddress   string `json:"caAddress"`
			CAName      string `json:"caName"`
			PilotCert   string `json:"pilotCertProvider"`
			CertSigners any    `json:"certSigners"`
		} `json:"global"`
	}
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	g := values.Global
	return map[string]any{
		"caAddress": g.CAAddress, "caName": g.CAName, "pilotCertProvider": g.PilotCert, "certSigners": g.CertSigners,
	}, nil
}

// meshTrust is what the mesh's configuration says of its root.
func meshTrust(o *cluster.Object) (map[string]any, error) {
	text, _, err := unstructured.NestedString(o.Object, "data", "mesh")
	if err != nil || text == "" {
		return nil, err
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("mesh: %w", err)
	}
	out := map[string]any{"trustDomain": "cluster.local"} // where nothing is said (pkg/config/constants)
	for _, key := range []string{"ca", "caCertificates", "trustDomain"} {
		if v := config[key]; v != nil && v != "" {
			out[key] = v
		}
	}
	return out, nil
}
