package knowledge

import (
	"embed"
	"io/fs"
	"sync"
)

//go:embed data/*.yaml
var data embed.FS

// Default is the knowledge that this rutter was built with. It is read at the
// first call; a test keeps it free of errors.
var Default = sync.OnceValues(func() (*Base, error) { return read(data) })

func read(fsys fs.FS) (*Base, error) {
	files, err := fs.Glob(fsys, "data/*.yaml")
	if err != nil {
		return nil, err
	}
	out := &Base{}
	for _, f := range files {
		text, err := fs.ReadFile(fsys, f)
		if err != nil {
			return nil, err
		}
		b, err := parse(f, text)
		if err != nil {
			return nil, err
		}
		out = out.over(b)
	}
	return out, nil
}

// OrDefault is b, or the Default where it is nil.
func OrDefault(b *Base) (*Base, error) {
	if b != nil {
		return b, nil
	}
	return Default()
}

// Load lays a file of an organization over base: what it says of a release or
// a note of the same id replaces, the rest is added. text is the file's content;
// its errors name file and line. base is not changed.
func Load(base *Base, file string, text []byte) (*Base, error) {
	b, err := parse(file, text)
	if err != nil {
		return nil, err
	}
	return base.over(b), nil
}
