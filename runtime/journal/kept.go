package journal

// Kept are the digests of the blobs that a record names, a backup included: what
// has to be beside the journal for a resume or a rollback. What a value of the
// script names (a manifest its objects) only that value knows.
func Kept(body Body) []string {
	var named []string
	switch b := body.(type) {
	case *Begin:
		named = []string{b.Bundle, b.Plan}
	case *Resume:
		named = []string{b.Bundle}
	case *StepEnd:
		named = []string{b.Value.Blob}
	case *Call:
		named = []string{b.Value.Blob}
		for _, f := range b.Facts {
			if f.Backup != nil {
				named = append(named, f.Backup.Digest)
			}
		}
	case *Plan:
		named = []string{b.Plan.Blob}
	case *Intent:
		named = []string{b.Sealed}
	case *Outcome:
		named = []string{b.Delta.Blob, b.Sealed}
	}
	var out []string
	for _, digest := range named {
		if digest != "" {
			out = append(out, digest)
		}
	}
	return out
}
