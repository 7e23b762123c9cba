package engine

import (
	"encoding/base64"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/cluster"
)

func TestRedact(t *testing.T) {
	r := &redactor{}
	encoded := base64.StdEncoding.EncodeToString([]byte("hunter22\n"))
	r.learn(&cluster.Object{Object: map[string]any{"data": map[string]any{"word": encoded, "short": base64.StdEncoding.EncodeToString([]byte("on"))}}})
	for _, c := range []struct{ in, want string }{
		{"login failed for hunter22", "login failed for (secret)"},
		{"env WORD=" + encoded, "env WORD=(secret)"},
		{"on and on", "on and on"},
		{"Authorization: Bearer abcdef0123456789", "Authorization: Bearer (secret)"},
		{"jwt eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl!", "jwt (secret)!"},
		{"postgres://app:s3cr3t@db/shop", "postgres://app:(secret)@db/shop"},
		{"--db-password=s3cr3t --v=2", "--db-password=(secret) --v=2"},
		{`{"password": "s3cr3t", "user": "ann"}`, `{"password": "(secret)", "user": "ann"}`},
		{`{"access_token":"abcd1234"}`, `{"access_token":"(secret)"}`},
		{"failed to fetch token: context deadline exceeded", "failed to fetch token: context deadline exceeded"},
		{`secret "cacerts" not found`, `secret "cacerts" not found`},
		{"-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nafter", "-----BEGIN RSA PRIVATE KEY-----(secret)-----END RSA PRIVATE KEY-----\nafter"},
		{"-----BEGIN PRIVATE KEY-----\nMIIE", "-----BEGIN PRIVATE KEY-----(secret)"},
		{"key AKIAIOSFODNN7EXAMPLE used", "key (secret) used"},
	} {
		got := r.text(c.in)
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
		if again := r.text(got); again != got {
			t.Errorf("%q: a second time it is %q", got, again)
		}
	}
}

func TestSecretsOfAPod(t *testing.T) {
	got := secretsOf(map[string]any{
		"volumes": []any{
			map[string]any{"name": "v", "secret": map[string]any{"secretName": "mounted"}},
			map[string]any{"name": "p", "projected": map[string]any{"sources": []any{map[string]any{"secret": map[string]any{"name": "projected"}}}}},
			map[string]any{"name": "c", "configMap": map[string]any{"name": "not-a-secret"}},
		},
		"containers": []any{map[string]any{
			"name":    "app",
			"env":     []any{map[string]any{"name": "A", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "variable", "key": "k"}}}},
			"envFrom": []any{map[string]any{"secretRef": map[string]any{"name": "environment"}}},
		}},
	})
	if strings.Join(got, " ") != "environment mounted projected variable" {
		t.Errorf("%v", got)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	long := strings.Repeat("x", 3*evidenceLine) + "\n" + strings.Repeat("a line\n", evidenceLog) + "the last"
	if got := tail(long, evidenceLog); len(got) > evidenceLog+8 || !strings.HasSuffix(got, "a line\nthe last") || !strings.HasPrefix(got, "…\na line\n") {
		t.Errorf("%d bytes, %.20q", len(got), got)
	}
	if got := tail(strings.Repeat("x", 3*evidenceLine), evidenceLog); len(got) > evidenceLine+8 {
		t.Errorf("a line of %d bytes", len(got))
	}
	w := &witness{}
	w.say("%s", strings.Repeat("é", evidenceSize))
	if got := w.bounded(); len(got) > evidenceSize+100 || !strings.Contains(got, "left out") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d bytes", len(got))
	}
	if got := tail("short\n", 100); got != "short\n" {
		t.Errorf("%q", got)
	}
}
