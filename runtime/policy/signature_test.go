package policy

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/signature"
)

func keyOf(t *testing.T, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), ed25519.SeedSize))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign is what ssh-keygen -Y sign does.
func sign(t *testing.T, key ssh.Signer, namespace, message string) []byte {
	t.Helper()
	sig, err := signature.Sign(key, namespace, []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func TestSigned(t *testing.T) {
	ada, eve := keyOf(t, 0), keyOf(t, 1)
	line := func(who, options string, k ssh.Signer) string {
		return who + " " + options + string(ssh.MarshalAuthorizedKey(k.PublicKey()))
	}
	book := &loader.Bundle{Entry: "//a.star", Files: map[string]string{"//a.star": "1", "//lib.star": "2", "@stdlib//x.star": "3"}}
	newer := &loader.Bundle{Entry: "//a.star", Files: map[string]string{"//a.star": "1", "//lib.star": "2", "@stdlib//x.star": "4"}}
	dependent := &loader.Bundle{Entry: "//a.star", Files: map[string]string{"//a.star": "1", "//lib.star": "2", "@ops//x.star": "3"}}
	other := &loader.Bundle{Entry: "//a.star", Files: map[string]string{"//a.star": "1", "//lib.star": "changed"}}
	good := sign(t, ada, Namespace, ToSign(book))
	for name, c := range map[string]struct {
		signers string
		book    *loader.Bundle
		sig     []byte
		want    string // "" where ada vouches
	}{
		"signed":                {line("ada", "", ada), book, good, ""},
		"of several":            {"# people\n\n" + line("eve", "", eve) + line("ada", "", ada), book, good, ""},
		"a newer library":       {line("ada", "", ada), newer, good, ""},
		"the namespace":         {line("ada", `namespaces="git,rutter-runbook" `, ada), book, good, ""},
		"still valid":           {line("ada", `valid-after="20250101",valid-before="20270101" `, ada), book, good, ""},
		"not valid yet":         {line("ada", `valid-after="20270101Z" `, ada), book, good, "not valid now"},
		"not valid any more":    {line("ada", `valid-before="202601010000" `, ada), book, good, "not valid now"},
		"a stranger":            {line("ada", "", ada), book, sign(t, eve, Namespace, ToSign(book)), "a key that the policy's signers don't have: SHA256:"},
		"what it loads changed": {line("ada", "", ada), other, good, "not of this runbook and what it loads"},
		"another library":       {line("ada", "", ada), dependent, good, "not of this runbook and what it loads"},
		"made for git":          {line("ada", "", ada), book, sign(t, ada, "git", ToSign(book)), `it was made for "git"`},
		"nothing":               {line("ada", "", ada), book, nil, "no SSH signature"},
		"cut off":               {line("ada", "", ada), book, good[:len(good)/2], "no SSH signature"},
		"of a plan":             {line("ada", "", ada), book, sign(t, ada, PlanNamespace, ToSign(book)), `it was made for "rutter-plan"`},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := signature.ParseSigners("signers", c.signers, Namespace)
			if err != nil {
				t.Fatal(err)
			}
			who, err := (&Policy{signers: keys}).Signed(c.book, c.sig, time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
			switch {
			case c.want == "" && (err != nil || who != "ada"):
				t.Errorf("got %q, %v", who, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %q, %v; want %q", who, err, c.want)
			}
		})
	}
}

// A plan's signature is of its bytes, by the signers that are named for plans.
func TestPlanSigned(t *testing.T) {
	ada, eve := keyOf(t, 0), keyOf(t, 1)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("both", `ada namespaces="rutter-plan" `+string(ssh.MarshalAuthorizedKey(ada.PublicKey()))+`eve namespaces="rutter-runbook" `+string(ssh.MarshalAuthorizedKey(eve.PublicKey())))
	p, err := Read(t.Context(), write("rutter.yaml", "signers: both\nplanSigners: both\nplanRequired: true\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !p.PlanRequired || len(p.Files) != 3 {
		t.Errorf("planRequired %v, %d files", p.PlanRequired, len(p.Files))
	}
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	if who, err := p.PlanSigned([]byte("plan"), sign(t, ada, PlanNamespace, "plan"), now); who != "ada" || err != nil {
		t.Errorf("ada's signature: %q, %v", who, err)
	}
	for want, c := range map[string]struct {
		plan string
		sig  []byte
	}{
		"its signature is not of this plan":                    {"plan", sign(t, ada, PlanNamespace, "another")},
		"a key that the policy's signers don't have":           {"plan", sign(t, eve, PlanNamespace, "plan")},
		`it was made for "rutter-runbook", want "rutter-plan"`: {"plan", sign(t, ada, Namespace, "plan")},
		"its signature can't be read: it is no SSH signature":  {"plan", []byte("-----BEGIN SSH SIGNATURE-----")},
	} {
		if who, err := p.PlanSigned([]byte(c.plan), c.sig, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, %v; want %s", who, err, want)
		}
	}
	if _, err := Read(t.Context(), write("bad.yaml", "planSigners: nowhere\nplanRequired: perhaps\n"), Options{}); err == nil || !strings.Contains(err.Error(), "perhaps") {
		t.Errorf("a bad policy: %v", err)
	}
	if _, err := Read(t.Context(), write("gone.yaml", "planSigners: nowhere\n"), Options{}); err == nil || !strings.Contains(err.Error(), "cannot read the allowed signers") {
		t.Errorf("a policy whose signers are nowhere: %v", err)
	}
}

func TestSignersFile(t *testing.T) {
	ada := string(ssh.MarshalAuthorizedKey(keyOf(t, 0).PublicKey()))
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"# nobody\n", "names no signer"},
		"no key":            {"ada\n", "signers:1: is no line"},
		"another namespace": {"ada namespaces=\"git\" " + ada, "names no signer"},
		"an authority":      {"ada cert-authority " + ada, `option "cert-authority" is not known`},
		"a wrong time":      {"ada valid-before=\"soon\" " + ada, `"soon" is no time`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "signers"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := &Policy{}
			p.Signers = filepath.Join(dir, "signers")
			if err := p.loadSigners(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
