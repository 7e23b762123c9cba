package lib

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/knowledge"
)

// goneIn are the fields that a version does not have any more; none where the version
// is not one, which is refused elsewhere.
func goneIn(k *knowledge.Base, version string) ([]*knowledge.RemovedField, error) {
	k, err := knowledge.OrDefault(k)
	if err != nil {
		return nil, err
	}
	v, err := semver.NewVersion(version)
	if err != nil {
		return nil, nil
	}
	return k.RemovedIn(v), nil
}

// removal says since when a field that Istio does not know is gone, and what
// there is instead; "" where it never was, or nothing is known of it.
func (in *renderInput) removal(field string) string {
	for _, r := range in.gone {
		last := r.Path[strings.LastIndex(r.Path, ".")+1:]
		if last != field || !in.sets(r.Path) {
			continue
		}
		return fmt.Sprintf("%s was removed in Istio %s; instead: %s", r.Path, r.Since, r.Instead)
	}
	return ""
}

// sets reports whether a setting or a file of the input gives the path. Files
// are looked at by its last part, which the error named.
func (in *renderInput) sets(path string) bool {
	for _, k := range in.setKeys {
		if k == path || strings.HasPrefix(k, path+".") || strings.HasPrefix(k, path+"[") || strings.HasPrefix(path, k+".") {
			return true
		}
	}
	last := path[strings.LastIndex(path, ".")+1:]
	for _, f := range in.files[1:] {
		if strings.Contains(string(f.Content), last+":") {
			return true
		}
	}
	return false
}
