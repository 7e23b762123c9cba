package deps

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Source is where the files of a dependency are: a folder of the repository, or a
// folder of a git repository at a commit.
type Source struct {
	// Path is relative to the module that asks, with slashes; "" for git.
	Path string `json:"path,omitempty"`

	Git    string `json:"git,omitempty"`
	Commit string `json:"commit,omitempty"`
	Folder string `json:"folder,omitempty"` // "." for the repository's own
}

// String is how a person and the lock file read it.
func (s Source) String() string {
	switch {
	case s.Git == "":
		return "path " + s.Path
	case s.Folder == ".":
		return "git " + s.Git + " " + s.Commit
	}
	return "git " + s.Git + " " + s.Commit + " " + s.Folder
}

// origin is the source without what changes from version to version.
func (s Source) origin() string {
	if s.Git == "" {
		return "path " + s.Path
	}
	return "git " + strings.TrimSuffix(strings.TrimSuffix(s.Git, "/"), ".git") + " " + s.Folder
}

var (
	commitText = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	// scpText is git@host:path, which is no URL.
	scpText  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[A-Za-z0-9._~][A-Za-z0-9._~/+-]*$`)
	hostText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?$`)
	pathText = regexp.MustCompile(`^/[A-Za-z0-9._~/+@-]*$`)
	partText = regexp.MustCompile(`^[A-Za-z0-9._+@ -]+$`)
)

func validCommit(s string) bool { return commitText.MatchString(s) }

// ValidURL refuses what git would take for something else than the address of a
// repository: options, helpers (ext::…), other protocols, credentials.
func ValidURL(s string) error {
	if scpText.MatchString(s) {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("%q is no address of a repository", s)
	}
	switch {
	case strings.HasPrefix(s, "-"), strings.Contains(s, "::"), u.Opaque != "":
		return fmt.Errorf("%q is no address of a repository", s)
	case u.Scheme != "https" && u.Scheme != "ssh" && u.Scheme != "file":
		return fmt.Errorf("%q is of a protocol that can't be trusted, or is none", s)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.Contains(s, "%"):
		return fmt.Errorf("%q has more than the address of a repository", s)
	case u.User != nil && (u.Scheme != "ssh" || !partText.MatchString(u.User.Username()) || strings.HasPrefix(u.User.Username(), "-")):
		return errors.New("an address with credentials in it; these belong to git (ssh-agent, .netrc, GIT_ASKPASS)")
	}
	if _, has := u.User.Password(); u.User != nil && has {
		return errors.New("an address with a password in it; that belongs to git (ssh-agent, .netrc, GIT_ASKPASS)")
	}
	if u.Scheme == "file" && u.Host != "" || u.Scheme != "file" && !hostText.MatchString(u.Host) {
		return fmt.Errorf("%q names no host, or one where none belongs", s)
	}
	if !pathText.MatchString(u.Path) || path.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") || u.Path == "/" {
		return fmt.Errorf("%q names no repository", s)
	}
	return nil
}

// validPath refuses paths that are not relative ones of plain parts. up allows
// leading "..".
func validPath(p string, up bool) error {
	switch {
	case p == "":
		return errors.New("the path is empty")
	case strings.HasPrefix(p, "/") || filepath.IsAbs(p) || filepath.VolumeName(p) != "":
		return fmt.Errorf("the path %q is absolute", p)
	case path.Clean(p) != strings.TrimSuffix(strings.TrimPrefix(p, "./"), "/") && p != ".":
		return fmt.Errorf("the path %q is not written plainly", p)
	}
	for part := range strings.SplitSeq(strings.Trim(strings.TrimPrefix(p, "./"), "/"), "/") {
		if part == ".." && up {
			continue
		}
		if part == ".." {
			return fmt.Errorf("the path %q leads outside", p)
		}
		if !partText.MatchString(part) || part == ".git" {
			return fmt.Errorf("the path %q has a part that none should have", p)
		}
	}
	return nil
}
