package plane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// serviceIP is the address of the Service kubernetes, the first of serviceRange.
const (
	serviceRange = "10.96.0.0/16"
	serviceIP    = "10.96.0.1"
)

// pki is where a plane's keys and certificates lie.
type pki struct{ dir string }

func (p pki) path(name string) string { return filepath.Join(p.dir, name) }

// Authority, server and signing keys, by file.
func (p pki) ca() string         { return p.path("ca.crt") }
func (p pki) signingKey() string { return p.path("sa.key") }
func (p pki) tokens() string     { return p.path("tokens.csv") }

// create makes everything anew: an authority, certificates for the API server
// and for kwok's kubelet port, the key that signs service account tokens, and
// a token for each user.
func (p pki) create(users []user) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	caKey, err := p.key("ca.key")
	if err != nil {
		return err
	}
	ca := blank("rutter-e2e")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	if err := p.certificate("ca.crt", ca, ca, caKey, caKey); err != nil {
		return err
	}
	for _, name := range []string{"apiserver", "kubelet"} {
		key, err := p.key(name + ".key")
		if err != nil {
			return err
		}
		cert := blank(name)
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		cert.IPAddresses = []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(serviceIP)}
		cert.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
		if err := p.certificate(name+".crt", cert, ca, key, caKey); err != nil {
			return err
		}
	}
	if _, err := p.key("sa.key"); err != nil {
		return err
	}
	return p.writeTokens(users)
}

func blank(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func (p pki) key(name string) (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return k, p.write(name, "EC PRIVATE KEY", der)
}

func (p pki) certificate(name string, cert, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	return p.write(name, "CERTIFICATE", der)
}

func (p pki) write(name, kind string, der []byte) error {
	return os.WriteFile(p.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// user is somebody whom the API server knows by a fixed token.
type user struct {
	name, group, token string
}

func (p pki) writeTokens(users []user) error {
	var csv []byte
	for _, u := range users {
		csv = fmt.Appendf(csv, "%s,%s,%s,%q\n", u.token, u.name, u.name, u.group)
	}
	return os.WriteFile(p.tokens(), csv, 0o600)
}

func randomToken() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// readKey reads a key that create wrote.
func (p pki) readKey(name string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(p.path(name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("key %s: not PEM", name)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}
