package sweep

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"rutter.dev/rutter/runtime/tool/sweep"
)

// A disturbed run that is back where the undisturbed one was is left there, but
// not each, and none whose case was named.
func TestBackOnTheRecordedWay(t *testing.T) {
	s := subject(t, sound)
	left := map[string]int{}
	var back string
	rep, err := sweep.Run(context.Background(), s, sweep.Options{Seed: 1, Cases: 120}, func(r sweep.Result) {
		if r.Back {
			left[r.Case.Then]++
			back = r.Case.String()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Failed) > 0 || left["resume"] == 0 || left["rollback"] == 0 || rep.Tried-rep.Back < rep.Tried/16 {
		t.Errorf("%d cases, %d back (%v), failed %v", rep.Tried, rep.Back, left, rep.Failed)
	}
	rep, err = sweep.Run(context.Background(), s, sweep.Options{Seed: 1, Only: []string{back}}, func(sweep.Result) {})
	if err != nil || rep.Back != 0 || len(rep.Failed) != 0 {
		t.Errorf("%s alone: %+v, %v", back, rep, err)
	}
}

// A script that was told of a failure is not back by ending the next step well:
// what it does later is seen in every case that is cut short.
func TestAScriptThatRemembersIsNeverBack(t *testing.T) {
	body := `first = attempt(step, "first", kube.get, "cm/settings", namespace = "default")
step("second", kube.patch, "deploy/a", {"metadata": {"labels": {"x": "y"}}}, namespace = "default")
if not first.ok:
    step("third", kube.patch, "cm/settings", {"data": {"b": "3"}}, namespace = "default")`
	short, whole := map[string]bool{}, map[string]bool{}
	_, err := sweep.Run(context.Background(), subject(t, body), sweep.Options{Seed: 1}, func(r sweep.Result) {
		if strings.HasPrefix(r.What, "GET ") && strings.Contains(r.What, "configmaps/settings") && r.Case.Then == "resume" {
			short[r.Case.String()] = len(r.Broken) > 0
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	rep, err := sweep.Run(context.Background(), subject(t, body), sweep.Options{Seed: 1, Only: slices.Sorted(maps.Keys(short))}, func(r sweep.Result) {
		whole[r.Case.String()] = len(r.Broken) > 0
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Failed) == 0 || !maps.Equal(short, whole) {
		t.Errorf("cut short %v, whole %v", short, whole)
	}
}
