package policy

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base64"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rutter.dev/rutter/runtime/loader"
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
	sum := sha512.Sum512([]byte(message))
	sig, err := key.Sign(rand.NewChaCha8([32]byte{}), append([]byte(sigMagic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{namespace, "", "sha512", sum[:]})...))
	if err != nil {
		t.Fatal(err)
	}
	blob := append([]byte(sigMagic), ssh.Marshal(struct {
		Version                   uint32
		Key                       []byte
		Namespace, Reserved, Hash string
		Signature                 []byte
	}{1, key.PublicKey().Marshal(), namespace, "", "sha512", ssh.Marshal(sig)})...)
	return []byte(sigBegin + "\n" + base64.StdEncoding.EncodeToString(blob) + "\n" + sigEnd + "\n")
}

func TestSigned(t *testing.T) {
	ada, eve := keyOf(t, 0), keyOf(t, 1)
	line := func(who, options string, k ssh.Signer) string {
		return who + " " + options + string(ssh.MarshalAuthorizedKey(k.PublicKey()))
	}
	book := &loader.Bundle{Entry: "//a.star", Files: map[string]string{"//a.star": "1", "//lib.star": "2", "@stdlib//x.star": "3"}}
	newer := &loader.Bundle{Entry: "//a.star", Files: map[string]string{"//a.star": "1", "//lib.star": "2", "@stdlib//x.star": "4"}}
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
		"made for git":          {line("ada", "", ada), book, sign(t, ada, "git", ToSign(book)), `it was made for "git"`},
		"nothing":               {line("ada", "", ada), book, nil, "no SSH signature"},
		"cut off":               {line("ada", "", ada), book, good[:len(good)/2], "no SSH signature"},
		"garbage":               {line("ada", "", ada), book, []byte(sigBegin + "\nAAAA\n" + sigEnd), "no SSH signature"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := parseSigners("signers", c.signers)
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

func TestSignersFile(t *testing.T) {
	ada := string(ssh.MarshalAuthorizedKey(keyOf(t, 0).PublicKey()))
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"# nobody\n", "names no signer"},
		"no key":            {"ada\n", "signers:1: is no line"},
		"another namespace": {"ada namespaces=\"git\" " + ada, "is for namespaces git"},
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
