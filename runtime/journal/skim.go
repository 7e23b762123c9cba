package journal

import (
	"errors"
	"io"
)

// skim verifies a whole journal, and decodes those records that each asks for.
// A torn tail just ends it.
func skim(fsys FS, path, run string, each func(t Type, rec func() (Record, error)) error) error {
	r, err := fsys.Open(path)
	if err != nil {
		return err
	}
	s := newScanner(r, path, run, -1)
	err = s.header()
	for err == nil {
		var p parts
		if p, err = s.verified(); err == nil {
			err = each(Type(p.typ), func() (Record, error) { return decoded(p) })
		}
	}
	if errors.Is(err, errTorn) || errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, r.Close())
}
