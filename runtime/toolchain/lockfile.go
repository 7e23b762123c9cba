package toolchain

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/lockfile"
)

// pinWord begins the lines of the lock file that are this package's:
//
//	toolchain istio-1.30.3-linux-amd64.tar.gz sha256:0123…
const pinWord = "toolchain"

var pinLine = regexp.MustCompile(`^toolchain (istio-[0-9A-Za-z.-]+\.tar\.gz) sha256:([0-9a-f]{64})$`)

// readLock reads the pins by archive. A file that is not there holds none.
func readLock(path string) (map[string]string, error) {
	if path == "" {
		return map[string]string{}, nil
	}
	lines, err := lockfile.Lines(path, pinWord)
	if err != nil {
		return nil, err
	}
	return pinsIn(path, lines)
}

func pinsIn(path string, lines []lockfile.Line) (map[string]string, error) {
	pins := map[string]string{}
	for _, line := range lines {
		at := diag.Pos{File: path, Line: line.Number, Col: 1}
		m := pinLine.FindStringSubmatch(line.Text)
		if m == nil {
			return nil, &diag.Error{Code: diag.Usage, Pos: at, Problem: "is no pin of an archive", Expect: `"toolchain istio-VERSION-OS-ARCH.tar.gz sha256:HEX"`}
		}
		if old, twice := pins[m[1]]; twice && old != m[2] {
			return nil, &diag.Error{Code: diag.Usage, Pos: at, Problem: m[1] + " is pinned twice, to different digests"}
		}
		pins[m[1]] = m[2]
	}
	return pins, nil
}

// addPin writes a pin into the lock file, which appears as a whole.
func addPin(path, archive, sum string) error {
	if path == "" {
		return diag.Usagef("lock file", "none is given, so that %s cannot be pinned", archive)
	}
	own := fmt.Sprintf("%s %s ", pinWord, archive)
	return lockfile.Update(path, pinWord, func(old []string) []string {
		return append(slices.DeleteFunc(old, func(line string) bool { return strings.HasPrefix(line, own) }), own+"sha256:"+sum)
	})
}
