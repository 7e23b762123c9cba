// Package lockfile reads and writes rutter.lock, in which a repository keeps the
// digests of what comes from elsewhere: istioctls and dependencies. Each line
// begins with a word that says whose it is; nobody touches the lines of others.
package lockfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/env"
)

// Name is what the file is called.
const Name = "rutter.lock"

// maxFile bounds a lock file, in bytes.
const maxFile = 1 << 20

// Line is one line, with its number from 1 on.
type Line struct {
	Text   string
	Number int
}

// Lines are those that begin with word and a space. A file that is not there has
// none.
func Lines(path, word string) ([]Line, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	return In(text, word), nil
}

// In is Lines of a text.
func In(text, word string) []Line {
	var out []Line
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, word+" ") {
			out = append(out, Line{line, i + 1})
		}
	}
	return out
}

// read reads no pipe and no device: opening one may wait for ever.
func read(path string) (string, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return string(b), nil
}

// Update lets change make new lines out of those that begin with word, and puts
// them, sorted, after everybody else's. The file appears as a whole.
func Update(path, word string, change func(old []string) []string) error {
	text, err := read(path)
	if err != nil {
		return err
	}
	var others, own []string
	if text != "" {
		for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), word+" ") {
				own = append(own, strings.TrimSpace(line))
			} else {
				others = append(others, line)
			}
		}
	}
	own = change(own)
	slices.Sort(own)
	all := strings.Join(append(others, own...), "\n")
	if all != "" {
		all += "\n"
	}
	return env.ReplaceFile(path, []byte(all), 0o644)
}
