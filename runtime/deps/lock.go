package deps

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/loader"
	"rutter.dev/rutter/runtime/lockfile"
)

// lockWord begins the lines of rutter.lock that are this package's:
//
//	dependency ops 1.4.0 sha256:0123… git https://… COMMIT [FOLDER]
//	dependency shared 0.2.0 sha256:0123… path ../shared
const lockWord = "dependency"

// Locked is one dependency in the version that was selected.
type Locked struct {
	Name    string          `json:"name"`
	Version *semver.Version `json:"version"`
	Digest  string          `json:"digest"` // of the content, "sha256:<hex>"
	Source  Source          `json:"source"`

	pos diag.Pos
}

func (l Locked) line() string {
	return fmt.Sprintf("%s %s %s %s %s", lockWord, l.Name, l.Version, l.Digest, l.Source)
}

var lockLine = regexp.MustCompile(`^dependency (\S+) (\S+) (sha256:[0-9a-f]{64}) (?:path (.+)|git (\S+) ([0-9a-f]{40}|[0-9a-f]{64})(?: (.+))?)$`)

// Lock is what rutter.lock says of dependencies, by name.
type Lock map[string]Locked

// ReadLock reads the lock file at a path; one that is not there locks nothing.
func ReadLock(path string) (Lock, error) {
	lines, err := lockfile.Lines(path, lockWord)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: path, Problem: "can't be read", Err: err, Changed: "nothing"}
	}
	return parseLock(path, lines)
}

func parseLock(path string, lines []lockfile.Line) (Lock, error) {
	out := Lock{}
	for _, line := range lines {
		pos := diag.Pos{File: path, Line: line.Number, Col: 1}
		l, ok := parseLine(line.Text)
		if !ok {
			return nil, &diag.Error{
				Code: diag.Usage, Pos: pos, Problem: "is no line of a dependency",
				Expect: `"dependency NAME VERSION sha256:HEX path FOLDER", or "… git URL COMMIT [FOLDER]"`, Changed: "nothing", Next: "rutter deps lock",
			}
		}
		if _, twice := out[l.Name]; twice {
			return nil, &diag.Error{Code: diag.Usage, Pos: pos, Problem: l.Name + " is locked twice", Expect: "one version of each dependency", Changed: "nothing", Next: "rutter deps lock, once one of the lines is gone"}
		}
		l.pos = pos
		out[l.Name] = l
	}
	return out, nil
}

func parseLine(text string) (Locked, bool) {
	m := lockLine.FindStringSubmatch(text)
	if m == nil || !loader.IsName(m[1]) {
		return Locked{}, false
	}
	v, err := semver.StrictNewVersion(m[2])
	if err != nil {
		return Locked{}, false
	}
	l := Locked{Name: m[1], Version: v, Digest: m[3], Source: Source{Path: m[4], Git: m[5], Commit: m[6], Folder: m[7]}}
	if l.Source.Git == "" {
		return l, validPath(l.Source.Path, true) == nil
	}
	if l.Source.Folder == "" {
		l.Source.Folder = "."
	}
	return l, ValidURL(l.Source.Git) == nil && validPath(l.Source.Folder, false) == nil
}

// writeLock writes the lock file: these dependencies and no others.
func writeLock(path string, lock Lock) error {
	var lines []string
	for _, l := range lock {
		lines = append(lines, l.line())
	}
	return lockfile.Update(path, lockWord, func([]string) []string { return lines })
}

// Sorted are the dependencies by name.
func (l Lock) Sorted() []Locked {
	var out []Locked
	for _, one := range l {
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Locked) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// compatible reports whether a version will do for who asks for at least another:
// a higher major version breaks what it was written for, and below 1.0 a minor one.
func compatible(least, v *semver.Version) bool {
	if least == nil {
		return true
	}
	return v.Major() == least.Major() && (v.Major() > 0 || v.Minor() == least.Minor()) && !v.LessThan(least)
}
