package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// skim goes through the frames of a journal without verifying or decoding the
// records that each does not ask for. It stops quietly at what it cannot
// follow; whether that is a torn tail or damage is for Open to find out.
func skim(fsys FS, path, run string, each func(t Type, rec func() (Record, error)) error) error {
	r, err := fsys.Open(path)
	if err != nil {
		return err
	}
	s := newScanner(r, path, run, -1)
	err = s.header()
	for err == nil {
		err = s.skim(each)
	}
	if errors.Is(err, errTorn) || errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, r.Close())
}

// prefixMax bounds crc, length, type and chain of a line.
const prefixMax = 8 + 1 + 12 + 1 + 32 + 1 + 64 + 1

func (s *scanner) skim(each func(Type, func() (Record, error)) error) error {
	head, err := s.r.Peek(prefixMax)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	f := bytes.SplitN(head, []byte{' '}, 5)
	if len(f) < 5 {
		return errTorn
	}
	n, err := strconv.Atoi(string(f[1]))
	if err != nil || n < 0 {
		return errTorn
	}
	whole := len(head) - len(f[4]) + n + 1
	t := Type(f[2])
	read := false
	err = each(t, func() (Record, error) {
		read = true
		line := make([]byte, whole)
		if _, err := io.ReadFull(s.r, line); err != nil {
			return Record{}, errTorn
		}
		p, err := sound(line[:whole-1])
		if err != nil {
			return Record{}, errTorn
		}
		return unchained(p)
	})
	if err == nil && !read {
		_, err = s.r.Discard(whole)
	}
	return err
}
