package knowledge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v3"
)

// RemovedField is a field of an IstioOperator that a release dropped.
type RemovedField struct {
	Path    string   `yaml:"path" json:"path"`       // below spec: "values.mixer"
	Since   string   `yaml:"since" json:"since"`     // the first minor version without it, "1.8"
	Instead string   `yaml:"instead" json:"instead"` // what there is in its place
	Sources []string `yaml:"sources" json:"sources"`

	since *semver.Version
}

// RemovedFields are all that are known, by path.
func (b *Base) RemovedFields() []*RemovedField { return slices.Clone(b.removed) }

// RemovedIn are the fields that v does not have any more, by path.
func (b *Base) RemovedIn(v *semver.Version) []*RemovedField {
	minor := semver.New(v.Major(), v.Minor(), 0, "", "") // of a pre-release, too
	return slices.DeleteFunc(b.RemovedFields(), func(f *RemovedField) bool { return f.since.GreaterThan(minor) })
}

// addFields takes the removed fields of a document; lines are theirs.
func (b *Base) addFields(fields []*RemovedField, lines []*yaml.Node) (*yaml.Node, error) {
	for i, f := range fields {
		if f == nil {
			return lines[i], errors.New("an empty field")
		}
		since, err := minorOf(f.Since)
		if err != nil {
			return lines[i], fmt.Errorf("field %s: since: %w", cmp.Or(f.Path, "without a path"), err)
		}
		if strings.Trim(f.Path, ". ") == "" || strings.TrimSpace(f.Instead) == "" || len(f.Sources) == 0 {
			return lines[i], fmt.Errorf("field %s: path, instead or sources is missing", cmp.Or(f.Path, "without a path"))
		}
		if slices.ContainsFunc(b.removed, func(o *RemovedField) bool { return o.Path == f.Path }) {
			return lines[i], fmt.Errorf("field %s is there twice", f.Path)
		}
		f.since, f.Instead = since, flat(f.Instead)
		b.removed = append(b.removed, f)
	}
	sortFields(b.removed)
	return nil, nil
}

func sortFields(list []*RemovedField) {
	slices.SortFunc(list, func(a, b *RemovedField) int { return cmp.Compare(a.Path, b.Path) })
}

// fieldsOver are those of b with those of o laid over them.
func (b *Base) fieldsOver(o *Base) []*RemovedField {
	out := slices.DeleteFunc(slices.Clone(b.removed), func(f *RemovedField) bool {
		return slices.ContainsFunc(o.removed, func(n *RemovedField) bool { return n.Path == f.Path })
	})
	out = append(out, o.removed...)
	sortFields(out)
	return out
}
