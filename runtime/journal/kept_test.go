package journal

import (
	"reflect"
	"slices"
	"testing"

	"rutter.dev/rutter/runtime/effect"
)

// Whatever field of a record names a blob, Kept knows it: a new one that it does
// not know would be lost without a word.
func TestKeptKnowsEveryBlob(t *testing.T) {
	value, found := reflect.TypeFor[Value](), 0
	for _, ty := range []Type{
		TypeBegin, TypeResume, TypeStepStart, TypeStepEnd, TypeCall, TypePlan, TypeIntent, TypeOutcome, TypeRefused,
		TypeApproval, TypeLog, TypeWarn, TypeUndo, TypeEvidence, TypeEnd,
	} {
		body := newBody(ty)
		var want []string
		v := reflect.ValueOf(body).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			digest := "sha256:" + name
			switch {
			case v.Field(i).Type() == value:
				v.Field(i).Set(reflect.ValueOf(Value{Blob: digest}))
			case v.Field(i).Kind() == reflect.String && slices.Contains([]string{"Bundle", "Plan", "Sealed", "Blob"}, name):
				v.Field(i).SetString(digest)
			default:
				continue
			}
			want = append(want, digest)
		}
		if got := Kept(body); !slices.Equal(got, want) {
			t.Errorf("%s: Kept gives %v, the record names %v", ty, got, want)
		}
		found += len(want)
	}
	if found == 0 {
		t.Error("no record names a blob")
	}
	call := &Call{Facts: []effect.Fact{{Precheck: &effect.Precheck{}}, {Backup: &effect.Backup{Digest: "sha256:b"}}}}
	if got := Kept(call); !slices.Equal(got, []string{"sha256:b"}) {
		t.Errorf("of a call that made a backup Kept gives %v", got)
	}
}
