package catalogue

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]Ref{
		"istio/in-place":          {"istio/in-place", ""},
		"istio/in-place.star":     {"istio/in-place", ""},
		"istio/in-place@1.2":      {"istio/in-place", "1.2"},
		"istio/in-place@1.2.star": {"istio/in-place", "1.2"},
		"a@b/c":                   {"a@b/c", ""},
	} {
		if got := Parse(name); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	names := []string{"in-place.star", "in-place@1.2.star", "in-place@1.10.0.star", "in-place_test.star", "in-place2.star", "sub/in-place.star", "rutter.mod.star"}
	got := Parse("./in-place@1").Files(names)
	if want := []string{"in-place.star", "in-place@1.2.star", "in-place@1.10.0.star"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPick(t *testing.T) {
	all := []Edition{{"x.star", "2.0.0"}, {"x@1.2.star", "1.2.3"}, {"x@1.10.0.star", "1.10.0"}, {"x@1.2.0.star", "1.2.0"}, {"x@3.0.0-rc.1.star", "3.0.0-rc.1"}}
	for version, want := range map[string]string{
		"": "x@3.0.0-rc.1.star", "2": "x.star", "1": "x@1.10.0.star", "1.2": "x@1.2.star", "1.2.0": "x@1.2.0.star", "1.10": "x@1.10.0.star", "3.0.0-rc.1": "x@3.0.0-rc.1.star", "1.1": "", "9": "", "1.2.": "", "3.0.0": "",
	} {
		got, err := Ref{"x", version}.Pick(all)
		if got.File != want || (want == "") != (err != nil) {
			t.Errorf("%q: got %v, %v, want %q", version, got, err, want)
		}
	}
	_, err := Ref{"x", "9"}.Pick(all)
	if err == nil || !strings.Contains(err.Error(), "x@9: there is no such version of the runbook; expected one of 1.10.0, 1.2.0") {
		t.Errorf("got %v", err)
	}
}

func TestCompare(t *testing.T) {
	all := []Edition{{"b.star", "1.0.0"}, {"a@1.2.star", "1.2.3"}, {"a.star", "1.5.0"}, {"a@1.10.0.star", "1.10.0"}, {"a@2.0.0.star", "2.0.0"}}
	slices.SortFunc(all, Compare)
	var got []string
	for _, e := range all {
		got = append(got, e.File)
	}
	if want := "a.star a@2.0.0.star a@1.10.0.star a@1.2.star b.star"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestAgrees(t *testing.T) {
	for e, ok := range map[Edition]bool{
		{"x.star", "1.0.0"}: true, {"x@1.star", "1.4.0"}: true, {"x@1.2.star", "1.2.9"}: true, {"x@1.2.star", "1.20.0"}: false, {"x@1.2.3.star", "1.2.3"}: true, {"x@1.2.3.star", "1.2.4"}: false, {"x@1.2.3.star", "1.2.3-rc.1"}: false,
	} {
		if err := e.Agrees(); (err == nil) != ok {
			t.Errorf("%v: got %v", e, err)
		}
	}
}
