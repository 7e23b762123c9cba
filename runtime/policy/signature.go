package policy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
)

// Namespace is what signatures on runbooks are made for: ssh-keygen -Y sign -n.
const Namespace = "rutter-runbook"

// signer is one line of an allowed signers file (ssh-keygen(1), ALLOWED SIGNERS).
type signer struct {
	who           string
	key           ssh.PublicKey
	after, before time.Time // when it is valid; zero for no bound
}

// ToSign is the text whose signature vouches for a runbook: it names every
// source that the runbook reaches, but for libraries, which come with rutter.
func ToSign(b *loader.Bundle) string {
	own := &loader.Bundle{Entry: b.Entry, Files: maps.Clone(b.Files)}
	maps.DeleteFunc(own.Files, func(label, _ string) bool { return strings.HasPrefix(label, "@") })
	return "rutter runbook " + own.Digest() + "\n"
}

// Signed finds out who of the policy's signers vouches for a runbook, by an
// armored SSH signature over ToSign. Without a trusted one that is an error.
func (p *Policy) Signed(b *loader.Bundle, armored []byte, now time.Time) (string, error) {
	sig, err := parseSignature(armored)
	if err != nil {
		return "", fmt.Errorf("its signature can't be read: %w", err)
	}
	if err := sig.verify(ToSign(b)); err != nil {
		return "", fmt.Errorf("its signature is not of this runbook and what it loads: %w", err)
	}
	why := errors.New("it is signed by a key that the policy's signers don't have: " + ssh.FingerprintSHA256(sig.key))
	for _, s := range p.signers {
		switch {
		case !bytes.Equal(s.key.Marshal(), sig.key.Marshal()):
		case !s.after.IsZero() && now.Before(s.after), !s.before.IsZero() && !now.Before(s.before):
			why = fmt.Errorf("it is signed by %s with a key that is not valid now", s.who)
		default:
			return s.who, nil
		}
	}
	return "", why
}

// signature is a parsed SSHSIG (PROTOCOL.sshsig of OpenSSH).
type signature struct {
	key  ssh.PublicKey
	hash string
	sig  *ssh.Signature
}

const (
	sigMagic = "SSHSIG"
	sigBegin = "-----BEGIN SSH SIGNATURE-----"
	sigEnd   = "-----END SSH SIGNATURE-----"
	maxSig   = 64 << 10
)

func parseSignature(armored []byte) (*signature, error) {
	if len(armored) > maxSig {
		return nil, errors.New("it is too large")
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(string(armored)), sigBegin)
	text, ends := strings.CutSuffix(text, sigEnd)
	if !ok || !ends {
		return nil, errors.New("it is no SSH signature")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, errors.New("it is no SSH signature")
	}
	blob, ok := bytes.CutPrefix(raw, []byte(sigMagic))
	var w struct {
		Version                        uint32
		Key, Namespace, Reserved, Hash string
		Signature                      []byte
	}
	if !ok || ssh.Unmarshal(blob, &w) != nil || w.Version != 1 {
		return nil, errors.New("it is no SSH signature")
	}
	if w.Namespace != Namespace {
		return nil, fmt.Errorf("it was made for %q, want %q", w.Namespace, Namespace)
	}
	s := &signature{hash: w.Hash, sig: &ssh.Signature{}}
	if s.key, err = ssh.ParsePublicKey([]byte(w.Key)); err != nil {
		return nil, err
	}
	if err := ssh.Unmarshal(w.Signature, s.sig); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *signature) verify(message string) error {
	if s.sig.Format == ssh.KeyAlgoRSA {
		return errors.New("it uses SHA-1")
	}
	var sum []byte
	switch s.hash {
	case "sha256":
		h := sha256.Sum256([]byte(message))
		sum = h[:]
	case "sha512":
		h := sha512.Sum512([]byte(message))
		sum = h[:]
	default:
		return fmt.Errorf("it uses %q", s.hash)
	}
	return s.key.Verify(append([]byte(sigMagic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{Namespace, "", s.hash, sum})...), s.sig)
}

// parseSigners reads an allowed signers file. What a line demands that is not
// understood here is an error: a key must not be trusted for more than it says.
func parseSigners(name, text string) ([]signer, error) {
	var out []signer
	var errs []error
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSigner(line)
		if err != nil {
			errs = append(errs, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name, Line: n}, Problem: err.Error(), Expect: "NAME [namespaces=…,valid-after=…,valid-before=…] KEYTYPE KEY"})
			continue
		}
		out = append(out, s)
	}
	errs = append(errs, sc.Err())
	if len(out) == 0 && len(errs) == 1 {
		errs = append(errs, &diag.Error{Code: diag.Usage, Pos: diag.Pos{File: name}, Problem: "names no signer", Expect: "a key at least"})
	}
	return out, errors.Join(errs...)
}

func parseSigner(line string) (signer, error) {
	who, rest, _ := strings.Cut(line, " ")
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil {
		return signer{}, errors.New("is no line of an allowed signers file")
	}
	s := signer{who: who, key: key}
	for _, o := range options {
		name, v, _ := strings.Cut(o, "=")
		v = strings.Trim(v, `"`)
		switch strings.ToLower(name) {
		case "namespaces":
			if !oneOf(strings.Split(v, ","), Namespace) {
				return signer{}, fmt.Errorf("is for namespaces %s, not for %s", v, Namespace)
			}
		case "valid-after":
			s.after, err = parseSignerTime(v)
		case "valid-before":
			s.before, err = parseSignerTime(v)
		default:
			err = fmt.Errorf("option %q is not known", name)
		}
		if err != nil {
			return signer{}, err
		}
	}
	return s, nil
}

func oneOf(list []string, s string) bool {
	for _, l := range list {
		if strings.TrimSpace(l) == s {
			return true
		}
	}
	return false
}

// parseSignerTime reads YYYYMMDD[HHMM[SS]][Z]; it is in UTC here, where ssh
// without Z means the zone of the machine.
func parseSignerTime(s string) (time.Time, error) {
	s = strings.TrimSuffix(s, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 20261231", s)
}
