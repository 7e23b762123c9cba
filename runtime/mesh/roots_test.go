package mesh_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/mesh"
)

func root(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestRootsThatDiffer(t *testing.T) {
	c := generated(t)
	one, two := root(t, "one"), root(t, "two")
	b64 := base64.StdEncoding.EncodeToString
	for _, o := range []map[string]any{
		{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "cacerts", "namespace": "istio-system"},
			"data": map[string]any{"root-cert.pem": b64(one), "ca-key.pem": b64([]byte("do not look"))},
		},
		{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "istio-remote-secret-west", "namespace": "istio-system", "labels": map[string]any{"istio/multiCluster": "true"}},
			"data": map[string]any{"west": b64([]byte("clusters:\n- cluster:\n    server: https://west.example.com\n    certificate-authority-data: " + b64(two) + "\n"))},
		},
		{
			"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
			"metadata": map[string]any{"name": "istio-validator-next", "labels": map[string]any{"istio.io/rev": "next"}},
			"webhooks": []any{map[string]any{
				"name": "validation.istio.io", "sideEffects": "None", "admissionReviewVersions": []any{"v1"}, "failurePolicy": "Ignore",
				"clientConfig": map[string]any{"caBundle": b64(two), "service": map[string]any{"name": "istiod-next", "namespace": "istio-system"}},
			}},
		},
	} {
		if _, err := c.Create(t.Context(), &cluster.Object{Object: o}, cluster.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := mesh.Trust(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Differences) != 1 || !strings.Contains(got.Differences[0], "istio-validator-next") {
		t.Errorf("differences %q", got.Differences)
	}
	if len(got.Remotes) != 1 || got.Remotes[0].Server != "https://west.example.com" || len(got.Remotes[0].Fingerprint) != 64 {
		t.Errorf("remotes %+v", got.Remotes)
	}
	for _, r := range got.Roots {
		if r.Subject == "" || r.NotAfter != "2036-01-01T00:00:00Z" {
			t.Errorf("%+v", r)
		}
	}
}

func TestUsesOfAMesh(t *testing.T) {
	c := generated(t)
	uses, err := mesh.UsesByName(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	u := uses[mesh.DefaultRevision]
	if len(u.Namespaces) == 0 || len(u.Proxies) == 0 || !u.Any() || !strings.Contains(u.Summary(), "namespaces (") {
		t.Errorf("%d names, default: %s", len(uses), u.Summary())
	}
	if uses["none"].Any() || uses["none"].Summary() != "" {
		t.Errorf("none: %s", uses["none"].Summary())
	}
}
