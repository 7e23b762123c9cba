package signature_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"rutter.dev/rutter/runtime/signature"
)

const namespace = "rutter-plan"

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// keys are one of each kind, as ssh-keygen would keep them.
func keys(t *testing.T) map[string][]byte {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for name, k := range map[string]any{"ed25519": ed, "rsa": r, "ecdsa": e} {
		b, err := ssh.MarshalPrivateKey(k, "")
		if err != nil {
			t.Fatal(err)
		}
		out[name] = pem.EncodeToMemory(b)
	}
	return out
}

func held(t *testing.T, private []byte) (ssh.Signer, string) {
	t.Helper()
	k, err := signature.Key(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k, string(ssh.MarshalAuthorizedKey(k.PublicKey()))
}

// What is signed here is verified here, and whatever is changed is not.
func TestSignAndVerify(t *testing.T) {
	for kind, private := range keys(t) {
		key, public := held(t, private)
		s, err := signature.ParseSigners("signers", "ada "+public, namespace)
		if err != nil {
			t.Fatal(err)
		}
		message := []byte("a plan")
		sig, err := signature.Sign(key, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		if who, err := s.Verify(message, sig, now); who != "ada" || err != nil {
			t.Errorf("%s: %q, %v", kind, who, err)
		}
		for i := range message {
			other := bytes.Clone(message)
			other[i] ^= 1
			if _, err := s.Verify(other, sig, now); !errors.Is(err, signature.ErrOther) {
				t.Errorf("%s: another message: %v", kind, err)
			}
		}
		for i := range sig {
			other := bytes.Clone(sig)
			other[i] ^= 1
			if who, err := s.Verify(message, other, now); err == nil && !same(other, sig) {
				t.Errorf("%s: byte %d of the signature is another, and %s vouches", kind, i, who)
			}
		}
	}
}

// A signature with SHA-1 is refused, although it is good: other texts have the
// same sum.
func TestWeakSignature(t *testing.T) {
	key, public := held(t, keys(t)["rsa"])
	s, err := signature.ParseSigners("signers", "ada "+public, namespace)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a plan")
	strong, err := sshsig.Sign(bytes.NewReader(message), key, sshsig.HashSHA512, namespace)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(message, sshsig.Armor(strong), now); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(message)
	signed := append([]byte("SSHSIG"), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{namespace, "", "sha512", sum[:]})...)
	strong.Signature, err = key.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, signed, ssh.KeyAlgoRSA)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.PublicKey().Verify(signed, strong.Signature); err != nil {
		t.Fatalf("it is not even good: %v", err)
	}
	if who, err := s.Verify(message, sshsig.Armor(strong), now); !errors.Is(err, signature.ErrUnreadable) || !strings.Contains(err.Error(), `"ssh-rsa"`) {
		t.Errorf("%q, %v", who, err)
	}
}

// same reports whether two armors hold the same signature: the last letter of
// base64 has bits that say nothing.
func same(a, b []byte) bool {
	x, _ := pem.Decode(bytes.TrimSpace(a))
	y, _ := pem.Decode(bytes.TrimSpace(b))
	return x != nil && y != nil && x.Type == y.Type && bytes.Equal(x.Bytes, y.Bytes)
}

// The real ssh-keygen takes our signatures, and we take its.
func TestSSHKeygen(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("there is no ssh-keygen here")
	}
	for kind, private := range keys(t) {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name string, b []byte) string {
				t.Helper()
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			key, public := held(t, private)
			keyFile, plan := write("key", private), write("x.plan", []byte("a plan\n"))
			signers := write("signers", []byte(`ada namespaces="`+namespace+`" `+public))
			sig, err := signature.Sign(key, namespace, []byte("a plan\n"))
			if err != nil {
				t.Fatal(err)
			}
			verify := exec.Command(keygen, "-Y", "verify", "-f", signers, "-I", "ada", "-n", namespace, "-s", write("ours.sig", sig))
			verify.Stdin = strings.NewReader("a plan\n")
			if out, err := verify.CombinedOutput(); err != nil {
				t.Errorf("ssh-keygen does not take our signature: %v: %s", err, out)
			}
			if out, err := exec.Command(keygen, "-Y", "sign", "-n", namespace, "-f", keyFile, plan).CombinedOutput(); err != nil {
				t.Fatalf("ssh-keygen: %v: %s", err, out)
			}
			theirs, err := os.ReadFile(plan + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			s, err := signature.ParseSigners(signers, `ada namespaces="`+namespace+`" `+public, namespace)
			if err != nil {
				t.Fatal(err)
			}
			if who, err := s.Verify([]byte("a plan\n"), theirs, now); who != "ada" || err != nil {
				t.Errorf("the signature of ssh-keygen: %q, %v", who, err)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	all := keys(t)
	key, public := held(t, all["ed25519"])
	raw, err := ssh.ParseRawPrivateKey(all["ed25519"])
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(raw.(*ed25519.PrivateKey), "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
		t.Fatal(err)
	}
	none := func() ([]ssh.Signer, error) { return nil, nil }
	broken := func() ([]ssh.Signer, error) { return nil, errors.New("no such agent") }
	for name, c := range map[string]struct {
		data []byte
		held func() ([]ssh.Signer, error)
		want string // "" where it is the key
	}{
		"a private key":              {all["ed25519"], nil, ""},
		"a public key of the agent":  {[]byte(public), ring.Signers, ""},
		"an encrypted key of it":     {pem.EncodeToMemory(block), ring.Signers, ""},
		"a public key, no agent":     {[]byte(public), nil, "is public or encrypted, so that an agent has to sign, and there is none"},
		"an encrypted key, no agent": {pem.EncodeToMemory(block), nil, "so that an agent has to sign"},
		"a key that it has not":      {[]byte(public), none, "the agent does not hold it: SHA256:"},
		"an agent that is broken":    {[]byte(public), broken, "no such agent"},
		"nothing":                    {nil, ring.Signers, "is no SSH key"},
		"something else":             {[]byte("-----BEGIN CERTIFICATE-----"), ring.Signers, "is no SSH key"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := signature.Key(c.data, c.held)
			switch {
			case c.want == "" && (err != nil || !bytes.Equal(got.PublicKey().Marshal(), key.PublicKey().Marshal())):
				t.Errorf("got %v, %v", got, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %s", err, c.want)
			}
			if c.want != "" {
				return
			}
			s, err := signature.ParseSigners("signers", "ada "+public, namespace)
			if err != nil {
				t.Fatal(err)
			}
			sig, err := signature.Sign(got, namespace, []byte("m"))
			if err != nil {
				t.Fatal(err)
			}
			if who, err := s.Verify([]byte("m"), sig, now); who != "ada" {
				t.Errorf("%q, %v", who, err)
			}
		})
	}
}

// FuzzVerify: whatever a signature file holds, it is refused or is ada's.
func FuzzVerify(f *testing.F) {
	k, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte("a"), ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	s, err := signature.ParseSigners("signers", "ada "+string(ssh.MarshalAuthorizedKey(k.PublicKey())), namespace)
	if err != nil {
		f.Fatal(err)
	}
	good, err := signature.Sign(k, namespace, []byte("m"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "m")
	f.Add([]byte("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"), "m")
	f.Fuzz(func(t *testing.T, sig []byte, message string) {
		who, err := s.Verify([]byte(message), sig, now)
		if (err == nil) != (who == "ada") || err == nil && message != "m" {
			t.Errorf("message %q: %q, %v", message, who, err)
		}
	})
}

func FuzzParseSigners(f *testing.F) {
	f.Add("# people\nada namespaces=\"git,rutter-plan\",valid-after=\"20250101\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUuTz\n")
	f.Add("ada cert-authority ssh-ed25519 A")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := signature.ParseSigners("signers", text, namespace); err == nil {
			if _, err := s.Verify([]byte("m"), []byte(text), now); err == nil {
				t.Error("a signature of nobody")
			}
		}
	})
}
