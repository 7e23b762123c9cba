package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

const digestPrefix = "sha256:"

func sum(b []byte) chain { return sha256.Sum256(b) }

// blobs is a directory of files named by the sha256 of what they hold.
type blobs struct {
	fs    FS
	dir   string
	count atomic.Int64 // for names of temporary files; the run is ours alone
	known sync.Map     // digests that this process knows to be durable
}

// Put implements Blobs: a temporary file, synced, renamed into place, and the
// directory synced.
func (s *blobs) Put(b []byte) (string, error) {
	h := sum(b)
	name := hex.EncodeToString(h[:])
	digest := digestPrefix + name
	if _, ok := s.known.Load(digest); ok {
		return digest, nil
	}
	// One that is there may be from a process that died before it synced the
	// directory, or be damaged: it is written again.
	if err := s.write(name, b); err != nil {
		return "", fmt.Errorf("blob %s: %w", digest, err)
	}
	s.known.Store(digest, true)
	return digest, nil
}

func (s *blobs) write(name string, b []byte) error {
	tmp := filepath.Join(s.dir, name+".tmp"+strconv.FormatInt(s.count.Add(1), 10))
	f, err := s.fs.Create(tmp)
	if errors.Is(err, fs.ErrExist) { // left over from a killed process
		if err = s.fs.Remove(tmp); err == nil {
			f, err = s.fs.Create(tmp)
		}
	}
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.fs.Remove(tmp))
	}
	if err := s.fs.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

// Get implements Blobs.
func (s *blobs) Get(digest string) ([]byte, error) {
	name, ok := strings.CutPrefix(digest, digestPrefix)
	if raw, err := hex.DecodeString(name); !ok || err != nil || len(raw) != sha256.Size {
		return nil, fmt.Errorf("blob %q: not a digest: %w", digest, fs.ErrNotExist)
	}
	path := filepath.Join(s.dir, name)
	r, err := s.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrNoBlob, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	}
	if h := sum(b); hex.EncodeToString(h[:]) != name {
		return nil, fmt.Errorf("%s: %w: its contents do not match its name", path, ErrDamaged)
	}
	return b, nil
}
