package lang

import (
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"

	"rutter.dev/rutter/runtime/builtin"
	"rutter.dev/rutter/runtime/diag"
	"rutter.dev/rutter/runtime/value"
)

type versionArgs struct {
	Version value.Version `star:"version,positional" doc:"Version such as \"1.31.0\"."`
}

type compareArgs struct {
	A value.Version `star:"a,positional" doc:"First version."`
	B value.Version `star:"b,positional" doc:"Second version."`
}

type satisfiesArgs struct {
	Version value.Version `star:"version,positional" doc:"Version such as \"1.31.0\"."`
	Range   string        `star:"range,positional" doc:"Range such as \"1.31.x\" or \">=1.30 <1.32\"."`
}

type sortArgs struct {
	Versions []value.Version `star:"versions,positional" doc:"Versions to sort."`
	Reverse  bool            `star:"reverse" default:"false" doc:"Newest first."`
}

func semverBuiltins() []*builtin.Spec {
	return []*builtin.Spec{
		builtin.NewPure(builtin.PureDef[versionArgs]{
			Name: "semver.parse", Returns: "version", Doc: "Reads a version. It has .major, .minor, .patch and .prerelease, and compares by precedence.",
			Example: `semver.parse("1.28.10") > semver.parse("1.28.9")`,
			Do:      func(_ *builtin.Call, a *versionArgs) (any, error) { return a.Version, nil },
		}),
		builtin.NewPure(builtin.PureDef[compareArgs]{
			Name: "semver.compare", Returns: "int", Doc: "Compares two versions: -1, 0 or 1.",
			Example: `semver.compare("1.28.9", "1.28.10")`,
			Do:      func(_ *builtin.Call, a *compareArgs) (any, error) { return a.A.Compare(a.B), nil },
		}),
		builtin.NewPure(builtin.PureDef[satisfiesArgs]{
			Name: "semver.satisfies", Returns: "bool", Doc: "Says whether a version is in a range.",
			Example: `semver.satisfies("1.31.0", "1.31.x")`,
			Do: func(_ *builtin.Call, a *satisfiesArgs) (any, error) {
				c, err := semver.NewConstraint(a.Range)
				if err != nil {
					return nil, diag.Usagef("semver.satisfies", "range: got %q, want a range such as \"1.31.x\"", a.Range)
				}
				c.IncludePrerelease = true
				return c.Check(a.Version.Semver()), nil
			},
		}),
		builtin.NewPure(builtin.PureDef[sortArgs]{
			Name: "semver.sort", Returns: "list of version", Doc: "Sorts versions, oldest first.",
			Example: `semver.sort(["1.28.10", "1.28.9"])[0]`,
			Do: func(_ *builtin.Call, a *sortArgs) (any, error) {
				sort.SliceStable(a.Versions, func(i, j int) bool {
					if a.Reverse {
						i, j = j, i
					}
					return a.Versions[i].Compare(a.Versions[j]) < 0
				})
				return a.Versions, nil
			},
		}),
	}
}

type reArgs struct {
	Pattern string `star:"pattern,positional" doc:"Regular expression (RE2: linear time, no backreferences)."`
	Text    string `star:"text,positional" doc:"Text to look in."`
}

type replaceArgs struct {
	Pattern string `star:"pattern,positional" doc:"Regular expression (RE2: linear time, no backreferences)."`
	Text    string `star:"text,positional" doc:"Text to look in."`
	By      string `star:"by,positional" doc:"Replacement; ${1} and ${name} stand for groups."`
}

func reBuiltins() []*builtin.Spec {
	return []*builtin.Spec{
		builtin.NewPure(builtin.PureDef[reArgs]{
			Name: "re.match", Returns: "object or None",
			Doc:     "Finds the first match anywhere in the text: .text, .start, .end, .groups (list) and .named (by name). None without a match.",
			Example: `re.match(r"^(\d+)\.(\d+)", "1.31.0").groups[1]`,
			Do:      match,
		}),
		builtin.NewPure(builtin.PureDef[reArgs]{
			Name: "re.find_all", Returns: "list of string", Doc: "Lists all matches.",
			Example: `re.find_all(r"\d+", "1.31.0")`,
			Do: func(_ *builtin.Call, a *reArgs) (any, error) {
				re, err := compile("re.find_all", a.Pattern)
				if err != nil {
					return nil, err
				}
				found := re.FindAllString(a.Text, maxMatches+1)
				if len(found) > maxMatches {
					return nil, diag.Usagef("re.find_all", "found more than %d matches, want at most that", maxMatches)
				}
				return found, nil
			},
		}),
		builtin.NewPure(builtin.PureDef[replaceArgs]{
			Name: "re.replace", Returns: "string", Doc: "Replaces all matches.",
			Example: `re.replace(r"v(\d)", "v1.31", "${1}")`,
			Do: func(_ *builtin.Call, a *replaceArgs) (any, error) {
				re, err := compile("re.replace", a.Pattern)
				if err != nil {
					return nil, err
				}
				return replaceAll(re, a)
			},
		}),
	}
}

// maxMatches bounds what is found in one text.
const maxMatches = 1_000_000

// replaceAll is ReplaceAllString that stops where the result gets too long. Each
// match is held with the places of all its groups, so that more groups make for
// fewer matches.
func replaceAll(re *regexp.Regexp, a *replaceArgs) (any, error) {
	most := maxMatches / (re.NumSubexp() + 1)
	found := re.FindAllStringSubmatchIndex(a.Text, most+1)
	if len(found) > most {
		return nil, diag.Usagef("re.replace", "found more than %d matches, want at most that", most)
	}
	var out []byte
	at := 0
	for _, m := range found {
		out = append(out, a.Text[at:m[0]]...)
		if n := len(out) + len(a.By) + strings.Count(a.By, "$")*(m[1]-m[0]); n > maxText {
			return nil, diag.Usagef("re.replace", "would give about %d bytes, want at most %d", n, maxText)
		}
		out, at = re.ExpandString(out, a.By, a.Text, m), m[1]
	}
	return string(append(out, a.Text[at:]...)), nil
}

// maxPattern bounds a pattern: compiled size grows with it.
const maxPattern = 1000

func compile(name, pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, diag.Usagef(name, "pattern: got %d characters, want at most %d", len(pattern), maxPattern)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, &diag.Error{Code: diag.Usage, Subject: name, Problem: fmt.Sprintf("pattern %q", pattern), Err: plainRegexp(err)}
	}
	return re, nil
}

func plainRegexp(err error) error {
	return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
}

func match(_ *builtin.Call, a *reArgs) (any, error) {
	re, err := compile("re.match", a.Pattern)
	if err != nil {
		return nil, err
	}
	at := re.FindStringSubmatchIndex(a.Text)
	if at == nil {
		return nil, nil
	}
	groups, named := []any{}, map[string]any{}
	for i := 1; i < len(at)/2; i++ {
		var g any
		if at[2*i] >= 0 {
			g = a.Text[at[2*i]:at[2*i+1]]
		}
		groups = append(groups, g)
		if name := re.SubexpNames()[i]; name != "" {
			named[name] = g
		}
	}
	return map[string]any{
		"text": a.Text[at[0]:at[1]], "start": int64(at[0]), "end": int64(at[1]), "groups": groups, "named": named,
	}, nil
}

type noArgs struct{}

type durationArgs struct {
	D time.Duration `star:"d,positional" doc:"Duration such as \"10m\", \"1h30m\" or \"2d\"."`
}

type parseTimeArgs struct {
	Text string `star:"text,positional" doc:"Time in RFC 3339, such as \"2026-09-01T02:00:00Z\"."`
}

func timeBuiltins() []*builtin.Spec {
	return []*builtin.Spec{
		builtin.NewRead(builtin.ReadDef[noArgs]{
			Name: "time.now", Returns: "time.time", Doc: "Tells the time on the host's clock. It is recorded: a resumed step sees the same time.",
			Example: `time.now().year`,
			Do:      func(c *builtin.Call, _ *noArgs) (any, error) { return c.Env.Clock.Now().UTC(), nil },
		}),
		builtin.NewPure(builtin.PureDef[durationArgs]{
			Name: "time.parse_duration", Returns: "time.duration", Doc: "Reads a duration.",
			Example: `time.parse_duration("1h30m").minutes`,
			Do:      func(_ *builtin.Call, a *durationArgs) (any, error) { return startime.Duration(a.D), nil },
		}),
		builtin.NewPure(builtin.PureDef[parseTimeArgs]{
			Name: "time.parse", Returns: "time.time", Doc: "Reads a time in RFC 3339, such as a creationTimestamp.",
			Example: `time.parse("2026-09-01T02:00:00Z").hour`,
			Do: func(_ *builtin.Call, a *parseTimeArgs) (any, error) {
				t, err := time.Parse(time.RFC3339Nano, a.Text)
				if err != nil {
					return nil, diag.Usagef("time.parse", "got %q, want a time such as \"2026-09-01T02:00:00Z\"", a.Text)
				}
				return starlark.Value(startime.Time(t.UTC())), nil
			},
		}),
	}
}
