package istioctl

import (
	"github.com/Masterminds/semver/v3"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/value"
)

type notesArgs struct {
	To   value.Version `star:"to" doc:"Istio version to upgrade to; the run's target if not given"`
	From value.Version `star:"since" doc:"version to upgrade from; the run's if not given"`
}

// upgradeNotes is the value of istioctl.notes.
type upgradeNotes struct {
	Since    string        `json:"since"`
	To       string        `json:"to"`
	Detected []upgradeNote `json:"detected"` // what concerns this mesh
	Look     []upgradeNote `json:"look"`     // what a person has to look at
	Clear    []string      `json:"clear"`    // ids of what was looked for and is not there
	Unknown  []string      `json:"unknown"`  // minor versions of which nothing is known
}

type upgradeNote struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	Severity string   `json:"severity"`
	Changes  string   `json:"changes"`
	Do       string   `json:"do"`
	Objects  []string `json:"objects"`
}

func notesSpec() *builtin.Spec {
	return builtin.NewRead(builtin.ReadDef[notesArgs]{
		Name: "istioctl.notes", Returns: "struct(since, to, detected, look, clear, unknown)",
		Doc: `The upgrade notes of the versions on the way, held against this mesh.
detected are those whose objects are there, look those that only a person can
judge: struct(id, title, severity, changes, do, objects). clear are the ids of
those that do not concern it. What is removed blocks by itself (RUT017), whether
this is called or not.`,
		Example: `istioctl.notes(since = "1.30.3", to = "1.31.0").detected`,
		Do: func(c *builtin.Call, a *notesArgs) (any, error) {
			k, err := knowledge.OrDefault(c.Run.Knowledge)
			if err != nil {
				return nil, err
			}
			from, err := versionOr(a.From, c.Run.From, "since")
			if err != nil {
				return nil, err
			}
			to, err := versionOr(a.To, c.Run.To, "to")
			if err != nil {
				return nil, err
			}
			r, err := k.Report(c.Ctx, c.Reader, from, to)
			if err != nil {
				return nil, err
			}
			return notesOf(r), nil
		},
	})
}

// versionOr is the version that was given, or that of the run.
func versionOr(given value.Version, run, name string) (*semver.Version, error) {
	if v := given.Semver(); v != nil {
		return v, nil
	}
	v, err := semver.StrictNewVersion(run)
	if err != nil {
		return nil, diag.Usagef("istioctl.notes", "%s: not given, and the run has none", name)
	}
	return v, nil
}

func notesOf(r *knowledge.Report) *upgradeNotes {
	out := &upgradeNotes{Since: r.From, To: r.To, Detected: []upgradeNote{}, Look: []upgradeNote{}, Clear: []string{}, Unknown: r.Unknown}
	for _, f := range r.Detected {
		n := noteOf(f.Note)
		for _, h := range f.Hits {
			n.Objects = append(n.Objects, h.Ref.String()+" "+h.Says)
		}
		out.Detected = append(out.Detected, n)
	}
	for _, n := range r.Look {
		out.Look = append(out.Look, noteOf(n))
	}
	for _, n := range r.Clear {
		out.Clear = append(out.Clear, n.ID)
	}
	return out
}

func noteOf(n *knowledge.Note) upgradeNote {
	return upgradeNote{ID: n.ID, Title: n.Title, Severity: string(n.Severity), Changes: n.Changes, Do: n.Do, Objects: []string{}}
}
