package knowledge

import (
	"context"

	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/cluster"
)

// Report is what an upgrade from one version to another means for a mesh.
type Report struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Cluster is the context that was looked at; "" where none was.
	Cluster string `json:"cluster,omitempty"`
	// Detected are the notes that concern the cluster, with the objects.
	Detected []Found `json:"detected"`
	// Look are those that a person has to look at.
	Look []*Note `json:"look"`
	// Clear are those whose detector found nothing; without a cluster, those
	// that have one.
	Clear []*Note `json:"clear"`
	// Irrelevant are those that concern no mesh.
	Irrelevant []*Note `json:"irrelevant"`
	// Unknown are minor versions on the way of which nothing is known.
	Unknown []string `json:"unknown"`
}

// Report says what of the notes on the way from one version to another concerns
// the cluster of r; r is nil where there is none to look at.
func (b *Base) Report(ctx context.Context, r cluster.Reader, from, to *semver.Version) (*Report, error) {
	out := &Report{
		From: from.Original(), To: to.Original(), Detected: []Found{}, Look: []*Note{}, Clear: []*Note{}, Irrelevant: []*Note{},
		Unknown: append([]string{}, b.Unknown(from, to)...),
	}
	notes := b.Between(from, to)
	hits := map[*Note]Found{}
	if r != nil {
		out.Cluster = r.Context()
		found, err := Look(ctx, r, notes)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			hits[f.Note] = f
		}
	}
	for _, n := range notes {
		switch f := hits[n]; {
		case n.Class == Manual:
			out.Look = append(out.Look, n)
		case n.Class == Irrelevant:
			out.Irrelevant = append(out.Irrelevant, n)
		case len(f.Hits) > 0:
			out.Detected = append(out.Detected, f)
		default:
			out.Clear = append(out.Clear, n)
		}
	}
	return out, nil
}
