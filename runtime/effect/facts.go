package effect

import "time"

// Facts is what a run has established so far: what gates ask about besides the
// live cluster. Builtins add to it through Call.Note; every fact is journaled
// with the call that noted it and comes back on resume.
type Facts struct {
	Renders   []Render   `json:"renders,omitempty"`
	Prechecks []Precheck `json:"prechecks,omitempty"`
	Backups   []Backup   `json:"backups,omitempty"`
	Diffs     []Diff     `json:"diffs,omitempty"`
	Approvals []Approval `json:"approvals,omitempty"`
}

// Fact is one thing established; exactly one field is set.
type Fact struct {
	Render   *Render   `json:"render,omitempty"`
	Precheck *Precheck `json:"precheck,omitempty"`
	Backup   *Backup   `json:"backup,omitempty"`
	Diff     *Diff     `json:"diff,omitempty"`
	Approval *Approval `json:"approval,omitempty"`
}

// Add records f.
func (fs *Facts) Add(f Fact) {
	switch {
	case f.Render != nil:
		fs.Renders = append(fs.Renders, *f.Render)
	case f.Precheck != nil:
		fs.Prechecks = append(fs.Prechecks, *f.Precheck)
	case f.Backup != nil:
		fs.Backups = append(fs.Backups, *f.Backup)
	case f.Diff != nil:
		fs.Diffs = append(fs.Diffs, *f.Diff)
	case f.Approval != nil:
		fs.Approvals = append(fs.Approvals, *f.Approval)
	}
}

// Render is a manifest rendered for a version.
type Render struct {
	Digest  string `json:"digest"`
	Version string `json:"version"`
	Engine  string `json:"engine"`
}

// Precheck is one run of istioctl.precheck.
type Precheck struct {
	Target   string    `json:"target"` // version it was made for
	At       time.Time `json:"at"`
	Errors   []string  `json:"errors,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
}

// Backup is one backup of this run.
type Backup struct {
	Digest   string `json:"digest"`
	Verified bool   `json:"verified"` // read back and compared after it was written
	// Covers maps Ref.ID() to the digest of the stored object.
	Covers map[string]string `json:"covers"`
}

// Diff is one diff that was shown. Objects maps Ref.ID() to the effect digest
// (Effect.Digest of the apply or delete that would make the change).
type Diff struct {
	ID      string            `json:"id"`
	Objects map[string]string `json:"objects"`
}

// Approval is one answer to approve().
type Approval struct {
	Step    string    `json:"step"`
	Message string    `json:"message"`
	By      string    `json:"by"`
	At      time.Time `json:"at"`
	Diffs   []string  `json:"diffs"` // ids of the diffs it covers
}

// Reviewed reports whether the effect digest for the object id was in a diff
// that an approval covers, and whether the object was diffed with another digest.
func (fs *Facts) Reviewed(id, digest string) (approved, diffed bool, other string) {
	covered := map[string]bool{}
	for _, a := range fs.Approvals {
		for _, d := range a.Diffs {
			covered[d] = true
		}
	}
	for _, d := range fs.Diffs {
		got, ok := d.Objects[id]
		switch {
		case ok && got == digest && covered[d.ID]:
			return true, true, ""
		case ok && got == digest:
			diffed = true
		case ok:
			other = got
		}
	}
	return false, diffed, other
}
