package toolchain

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/diag"
)

// pinWord begins the lines of the lock file that are this package's:
//
//	toolchain istio-1.30.3-linux-amd64.tar.gz sha256:0123…
//
// Lines that begin otherwise are left as they are.
const pinWord = "toolchain "

var pinLine = regexp.MustCompile(`^toolchain (istio-[0-9A-Za-z.-]+\.tar\.gz) sha256:([0-9a-f]{64})$`)

// readLock reads the pins by archive. A file that is not there holds none.
func readLock(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || path == "" {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseLock(path, string(b))
}

func parseLock(path, text string) (map[string]string, error) {
	pins := map[string]string{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if !strings.HasPrefix(line, pinWord) {
			continue
		}
		at := diag.Pos{File: path, Line: n, Col: 1}
		m := pinLine.FindStringSubmatch(line)
		if m == nil {
			return nil, &diag.Error{Code: diag.Usage, Pos: at, Problem: "is no pin of an archive", Expect: `"toolchain istio-VERSION-OS-ARCH.tar.gz sha256:HEX"`}
		}
		if old, twice := pins[m[1]]; twice && old != m[2] {
			return nil, &diag.Error{Code: diag.Usage, Pos: at, Problem: m[1] + " is pinned twice, to different digests"}
		}
		pins[m[1]] = m[2]
	}
	return pins, sc.Err()
}

// addPin writes a pin into the lock file, which appears as a whole.
func addPin(path, archive, sum string) error {
	if path == "" {
		return diag.Usagef("lock file", "none is given, so that %s cannot be pinned", archive)
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var others, pins []string
	for _, line := range strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, pinWord+archive+" "):
		case strings.HasPrefix(line, pinWord):
			pins = append(pins, line)
		case len(b) > 0:
			others = append(others, line)
		}
	}
	pins = append(pins, fmt.Sprintf("%s%s sha256:%s", pinWord, archive, sum))
	slices.Sort(pins)
	text := strings.Join(append(others, pins...), "\n") + "\n"
	f, err := os.CreateTemp(filepath.Dir(path), ".rutter.lock-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
