// Package seal encrypts Secret material with an age X25519 key that lies in the
// state folder, readable by its owner alone (DESIGN §8 ruling 9).
package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
)

// KeyFile is the name of the key within the state folder.
const KeyFile = "age.key"

// Sealer seals to one key, and to those of others, and opens what was sealed to
// its own. It is immutable and safe for concurrent use.
type Sealer struct {
	id      *age.X25519Identity
	others  []age.Recipient
	markKey []byte // see Mark
}

// ErrKey is wrapped by errors about the key itself.
var ErrKey = errors.New("age key")

// Open reads the key of the state folder dir, making folder and key on first
// use, and proves that what it seals it also opens: a key that can't be used
// must show before the first write, not at the rollback. A key that others may
// read is refused.
func Open(dir string) (*Sealer, error) {
	path := filepath.Join(dir, KeyFile)
	id, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		id, err = create(dir, path)
	}
	if err != nil {
		return nil, err
	}
	s, err := sealerOf(id)
	if err != nil {
		return nil, err
	}
	return s, s.prove()
}

// sealerOf is a sealer to one key.
func sealerOf(id *age.X25519Identity) (*Sealer, error) {
	key, err := hkdf.Key(sha256.New, []byte(id.String()), nil, "rutter "+markScheme, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("%w: the key of its marks: %w", ErrKey, err)
	}
	return &Sealer{id: id, markKey: key}, nil
}

func read(path string) (*age.X25519Identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: mode is %04o, want 0600; others may have read it", path, ErrKey, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrKey, err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			// The error of age may quote the line, which is the key.
			return nil, fmt.Errorf("%s: %w: is not an age X25519 identity", path, ErrKey)
		}
		return id, nil
	}
	return nil, fmt.Errorf("%s: %w: the file holds no key", path, ErrKey)
}

// create writes a new key and publishes it under its name only once it is
// whole and on disk; of two processes that race, the first one's key wins.
func create(dir, path string) (*age.X25519Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrKey, err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	f, err := os.CreateTemp(dir, KeyFile+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrKey, err)
	}
	_, werr := fmt.Fprintf(f, "# public key: %s\n%s\n", id.Recipient(), id)
	err = errors.Join(werr, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	rerr := os.Remove(f.Name())
	if errors.Is(err, fs.ErrExist) {
		return read(path)
	}
	if err = errors.Join(err, rerr); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrKey, err)
	}
	return id, nil
}

func (s *Sealer) prove() error {
	const probe = "rutter"
	sealed, err := s.Seal([]byte(probe))
	if err != nil {
		return err
	}
	plain, err := s.Open(sealed)
	if err != nil {
		return err
	}
	if string(plain) != probe {
		return fmt.Errorf("%w: does not open what it sealed", ErrKey)
	}
	return nil
}

// Recipient is the public key, as age writes it.
func (s *Sealer) Recipient() string { return s.id.Recipient().String() }

// To is a sealer that seals to further public keys too, as age writes them
// ("age1…"): whoever holds one of theirs opens it when this machine is gone. It
// opens what s does.
func (s *Sealer) To(recipients ...string) (*Sealer, error) {
	out := &Sealer{id: s.id, others: slices.Clone(s.others), markKey: s.markKey}
	for _, text := range recipients {
		r, err := age.ParseX25519Recipient(text)
		if err != nil {
			return nil, fmt.Errorf("recipient %q: %w: %w", text, ErrKey, err)
		}
		out.others = append(out.others, r)
	}
	return out, out.prove()
}

// Seal encrypts plain.
func (s *Sealer) Seal(plain []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, append([]age.Recipient{s.id.Recipient()}, s.others...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: seal: %w", ErrKey, err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("%w: seal: %w", ErrKey, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("%w: seal: %w", ErrKey, err)
	}
	return b.Bytes(), nil
}

// Open decrypts what Seal gave; anything changed since is an error.
func (s *Sealer) Open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), s.id)
	if err != nil {
		return nil, fmt.Errorf("%w: open: %w", ErrKey, err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%w: open: %w", ErrKey, err)
	}
	return plain, nil
}
