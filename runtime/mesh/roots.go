package mesh

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
)

// Root is one certificate that something in the mesh trusts.
type Root struct {
	Source      string `json:"source"`      // object that holds it
	Revision    string `json:"revision"`    // of the istiod whose it is; "" where it is the mesh's
	Fingerprint string `json:"fingerprint"` // SHA-256 of the certificate, hex
	Subject     string `json:"subject"`
	NotAfter    string `json:"not_after"` // RFC 3339
}

// Remote is another cluster that the istiods here read.
type Remote struct {
	Name        string `json:"name"` // as the secret calls the cluster
	Secret      string `json:"secret"`
	Server      string `json:"server"`
	Fingerprint string `json:"fingerprint"` // of the CA of its API server; "" where none is given
}

// Roots is what Trust finds.
type Roots struct {
	Roots   []Root   `json:"roots"`
	Remotes []Remote `json:"remotes"`
	// Unreadable are sources that could not be read, with the reason.
	Unreadable []string `json:"unreadable"`
	// Differences say where two sources that must agree do not; empty is well.
	Differences []string `json:"differences"`
}

// caSecrets are the entries of Secrets that hold a root, the first that is there
// counting; the keys beside them are never looked at. Sources: Istio's
// security/pkg/pki/ca (istio-ca-secret) and "plug in CA certificates".
var caSecrets = []struct{ name, entry, older string }{
	{"cacerts", "root-cert.pem", "ca.crt"},
	{"istio-ca-secret", "ca-cert.pem", ""},
}

// Trust collects the roots of trust: of the CA that each control plane signs
// with, of what istiods gave to namespaces (istio-ca-root-cert) and of the CA
// bundles that they wrote into their webhooks, and those of remote clusters.
// Old and new istiod must have one root, or their proxies do not talk to each
// other (istio/istio#47650, #46600). Private keys are not looked at.
func Trust(ctx context.Context, r cluster.Reader) (*Roots, error) {
	t := &Roots{Roots: []Root{}, Remotes: []Remote{}, Unreadable: []string{}, Differences: []string{}}
	planes, err := ControlPlanes(ctx, r)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, p := range planes {
		if seen[p.Namespace] {
			continue
		}
		seen[p.Namespace] = true
		if err := t.authority(ctx, r, p.Namespace); err != nil {
			return nil, err
		}
	}
	if err := t.given(ctx, r); err != nil {
		return nil, err
	}
	for _, kind := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
		if err := t.bundles(ctx, r, kind); err != nil {
			return nil, err
		}
	}
	if err := t.remotes(ctx, r, seen); err != nil {
		return nil, err
	}
	slices.SortFunc(t.Roots, func(a, b Root) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	t.compare()
	return t, nil
}

// authority reads the roots of the CA that istiods of a namespace sign with.
func (t *Roots) authority(ctx context.Context, r cluster.Reader, namespace string) error {
	for _, s := range caSecrets {
		ref := cluster.Ref{Version: "v1", Kind: "Secret", Namespace: namespace, Name: s.name}
		o, err := r.Get(ctx, ref)
		switch {
		case errors.Is(err, cluster.ErrNotFound):
			continue
		case cluster.MissingRight(err) != "":
			t.Unreadable = append(t.Unreadable, fmt.Sprintf("%s: %v", ref, err))
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", ref, err)
		}
		data, _, err := unstructured.NestedStringMap(o.Object, "data")
		if err != nil {
			return fmt.Errorf("%s: %w", ref, err)
		}
		raw, err := base64.StdEncoding.DecodeString(cmp.Or(data[s.entry], data[s.older]))
		if err != nil {
			return fmt.Errorf("%s: %s: %w", ref, s.entry, err)
		}
		t.add(ref.String(), "", raw)
		return nil // cacerts wins over istio-ca-secret
	}
	return nil
}

// given reads what istiod put into namespaces; equal ones count once.
func (t *Roots) given(ctx context.Context, r cluster.Reader) error {
	seen := map[string]bool{}
	return list(ctx, r, schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, cluster.ListOptions{Labels: "istio.io/config=true"}, func(o *cluster.Object) error {
		data, _, err := unstructured.NestedStringMap(o.Object, "data")
		if err != nil || o.GetName() != "istio-ca-root-cert" || seen[data["root-cert.pem"]] {
			return err
		}
		seen[data["root-cert.pem"]] = true
		t.add(cluster.RefOf(o).String(), "", []byte(data["root-cert.pem"]))
		return nil
	})
}

// bundles reads the CA bundles that each revision's istiod wrote.
func (t *Roots) bundles(ctx context.Context, r cluster.Reader, kind string) error {
	gvk := schema.GroupVersionKind{Group: webhooks.Group, Version: webhooks.Version, Kind: kind}
	return list(ctx, r, gvk, cluster.ListOptions{Labels: LabelRev}, func(o *cluster.Object) error {
		hooks, _, err := unstructured.NestedSlice(o.Object, "webhooks")
		if err != nil {
			return fmt.Errorf("%s: %w", cluster.RefOf(o), err)
		}
		seen := map[string]bool{}
		for _, h := range hooks {
			m, ok := h.(map[string]any)
			if !ok {
				continue
			}
			b, _, err := unstructured.NestedString(m, "clientConfig", "caBundle")
			if err != nil || b == "" || seen[b] {
				continue
			}
			seen[b] = true
			raw, err := base64.StdEncoding.DecodeString(b)
			if err != nil {
				return fmt.Errorf("%s: caBundle: %w", cluster.RefOf(o), err)
			}
			t.add(cluster.RefOf(o).String(), orDefault(o.GetLabels()[LabelRev]), raw)
		}
		return nil
	})
}

// add enters the certificates of PEM text.
func (t *Roots) add(source, revision string, raw []byte) {
	found := false
	for {
		var block *pem.Block
		block, raw = pem.Decode(raw)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		root := Root{Source: source, Revision: revision, Fingerprint: fingerprint(block.Bytes)}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			root.Subject, root.NotAfter = c.Subject.String(), c.NotAfter.UTC().Format("2006-01-02T15:04:05Z")
		}
		t.Roots = append(t.Roots, root)
		found = true
	}
	if !found {
		t.Unreadable = append(t.Unreadable, source+": holds no certificate")
	}
}

func fingerprint(der []byte) string {
	h := sha256.Sum256(der)
	return hex.EncodeToString(h[:])
}

// remotes reads whom the remote secrets lead to, and nothing of their credentials.
func (t *Roots) remotes(ctx context.Context, r cluster.Reader, spaces map[string]bool) error {
	for ns := range spaces {
		err := list(ctx, r, schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, cluster.ListOptions{Namespace: ns, Labels: "istio/multiCluster=true"}, func(o *cluster.Object) error {
			data, _, err := unstructured.NestedStringMap(o.Object, "data")
			if err != nil {
				return fmt.Errorf("%s: %w", cluster.RefOf(o), err)
			}
			for name, b64 := range data {
				t.Remotes = append(t.Remotes, remoteOf(name, cluster.RefOf(o).String(), b64))
			}
			return nil
		})
		if cluster.MissingRight(err) != "" {
			t.Unreadable = append(t.Unreadable, fmt.Sprintf("remote secrets in %s: %v", ns, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("remote secrets: %w", err)
		}
	}
	slices.SortFunc(t.Remotes, func(a, b Remote) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

func remoteOf(name, secret, b64 string) Remote {
	out := Remote{Name: name, Secret: secret}
	raw, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return out
	}
	var kc struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
	}
	if err := yaml.Unmarshal(raw, &kc); err != nil || len(kc.Clusters) == 0 {
		return out
	}
	out.Server = kc.Clusters[0].Cluster.Server
	if block, _ := pem.Decode(kc.Clusters[0].Cluster.CA); block != nil {
		out.Fingerprint = fingerprint(block.Bytes)
	}
	return out
}

// compare wants one set of roots: every two sources must share one, since a
// root that is being changed is trusted beside its successor for a while.
func (t *Roots) compare() {
	by := map[string][]string{}
	var sources []string
	for _, r := range t.Roots {
		if by[r.Source] == nil {
			sources = append(sources, r.Source)
		}
		by[r.Source] = append(by[r.Source], r.Fingerprint)
	}
	if len(sources) < 2 {
		return
	}
	first := sources[0]
	for _, s := range sources[1:] {
		shared := slices.ContainsFunc(by[s], func(f string) bool { return slices.Contains(by[first], f) })
		if !shared {
			t.Differences = append(t.Differences, fmt.Sprintf("%s trusts %s, %s trusts %s", first, shorten(by[first]), s, shorten(by[s])))
		}
	}
}

func shorten(fs []string) string {
	out := make([]string, len(fs))
	for i, f := range fs {
		out[i] = f[:min(12, len(f))]
	}
	return strings.Join(out, " and ")
}
