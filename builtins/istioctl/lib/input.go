package lib

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"github.com/Masterminds/semver/v3"
	"sigs.k8s.io/yaml"

	"istio.io/istio/manifests"

	"rutter.dev/rutter/runtime/env"
	"rutter.dev/rutter/runtime/knowledge"
	"rutter.dev/rutter/runtime/plain"
)

// renderInput is everything that a manifest depends on, read and validated.
type renderInput struct {
	version  string
	flags    []string // from Set, SetFlags
	profile  string
	revision string
	files    []File // contents in rising precedence, our own base and overlay included
	setKeys  []string
	charts   string // manifests folder, or ""
	chartSum string // digest of that folder's content
	tool     string // istioctl of another version that renders instead, or ""
	warnings []string
	gone     []*knowledge.RemovedField // that the version does not have any more
}

func newRenderInput(opts RenderOptions) (*renderInput, error) {
	in := &renderInput{version: cmp.Or(opts.Version, LinkedVersion), profile: opts.Profile}
	if err := in.findCharts(opts.ChartsDir); err != nil {
		return nil, err
	}
	if err := in.refuseProfile(); err != nil {
		return nil, err
	}
	full, err := newInput(opts)
	if err != nil {
		return nil, err
	}
	full.charts, full.chartSum, full.warnings = in.charts, in.chartSum, in.warnings
	return full, nil
}

// newInput reads and validates everything but which charts are rendered.
func newInput(opts RenderOptions) (*renderInput, error) {
	in := &renderInput{version: cmp.Or(opts.Version, LinkedVersion), profile: opts.Profile, revision: opts.Revision}
	var err error
	if in.gone, err = goneIn(opts.Knowledge, in.version); err != nil {
		return nil, err
	}
	// What an istioctl of this version has compiled in. As the first file it
	// loses to every input, as the compiled-in values do.
	base, err := operatorDocument(map[string]any{"hub": DefaultHub, "tag": in.version})
	if err != nil {
		return nil, err
	}
	in.files = append(in.files, File{Name: "base", Content: base})
	for _, f := range opts.Files {
		if err := in.addFile(f); err != nil {
			return nil, err
		}
	}
	settings, err := NewSettings(opts.Set)
	if err != nil {
		return nil, err
	}
	if settings.Overlay != nil {
		in.files = append(in.files, File{Name: "of the set values", Content: settings.Overlay})
	}
	in.flags = append(in.flags, settings.Flags...)
	in.setKeys = sortedKeys(opts.Set)
	for _, f := range opts.SetFlags {
		key, _, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("set %q: no value; expected path=value", f)
		}
		if _, err := splitSetPath(strings.TrimSpace(key)); err != nil {
			return nil, err
		}
		in.flags = append(in.flags, f)
		in.setKeys = append(in.setKeys, strings.TrimSpace(key))
	}
	return in, nil
}

// engine says what renders: for plans and reports.
func (in *renderInput) engine() string {
	if in.charts != "" {
		return "istio library " + LinkedVersion + ", charts folder"
	}
	return "istio library " + LinkedVersion
}

// allFlags are the --set strings in rising precedence.
func (in *renderInput) allFlags() []string {
	var out []string
	if in.charts != "" {
		out = append(out, "installPackagePath="+in.charts)
	}
	if in.profile != "" {
		out = append(out, "profile="+in.profile)
	}
	out = append(out, in.flags...)
	if in.revision != "" {
		out = append(out, "revision="+in.revision)
	}
	return out
}

// digest identifies the input.
func (in *renderInput) digest() string {
	contents := make([]string, len(in.files))
	for i, f := range in.files {
		contents[i] = string(f.Content)
	}
	b, err := json.Marshal([]any{
		"rutter manifest 1", LinkedVersion, in.version, in.profile, in.revision,
		in.flags, contents, in.chartSum,
	})
	if err != nil { // strings and bytes only
		panic(err)
	}
	return sum(b)
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// findCharts decides between the linked charts and those in a folder.
func (in *renderInput) findCharts(dir string) error {
	want, err := semver.StrictNewVersion(in.version)
	if err != nil {
		return fmt.Errorf("version %q: %w; expected one such as %s", in.version, err, LinkedVersion)
	}
	linked := semver.MustParse(LinkedVersion)
	if dir == "" {
		if want.Major() == linked.Major() && want.Minor() == linked.Minor() {
			if in.version != LinkedVersion {
				in.warnings = append(in.warnings, fmt.Sprintf(
					"version %s: rendered with the charts of %s and images of %s", in.version, LinkedVersion, in.version))
			}
			return nil
		}
		return fmt.Errorf("version %s: %w: rutter renders %s.x by itself; for %d.%d give the charts folder of that release (istio-%s/manifests) or use its own istioctl",
			in.version, ErrNotLinked, LinkedMinor, want.Major(), want.Minor(), in.version)
	}
	if in.charts, err = manifestsFolder(dir); err != nil {
		return err
	}
	if in.chartSum, err = folderDigest(in.charts); err != nil {
		return fmt.Errorf("charts folder %s: %w", dir, err)
	}
	return in.compareChartVersion(dir, want)
}

// manifestsFolder finds the folder with profiles and charts below a release folder.
func manifestsFolder(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("charts folder %s: %w", dir, err)
	}
	for _, d := range []string{abs, filepath.Join(abs, "manifests")} {
		_, err := os.Stat(filepath.Join(d, "profiles", "default.yaml"))
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("charts folder %s: %w", dir, err)
		}
	}
	return "", fmt.Errorf("charts folder %s: no profiles/default.yaml in it or in its manifests folder; expected an unpacked Istio release", dir)
}

// compareChartVersion refuses a charts folder of another minor than asked
// for. Charts from a source checkout say 1.0.0 and can't be judged.
func (in *renderInput) compareChartVersion(dir string, want *semver.Version) error {
	b, err := os.ReadFile(filepath.Join(in.charts, "charts", "base", "Chart.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("charts folder %s: %w", dir, err)
	}
	var chart struct {
		AppVersion string `json:"appVersion"`
	}
	if err := plain.Written.Check(b); err != nil {
		return fmt.Errorf("charts folder %s: base/Chart.yaml: %w", dir, err)
	}
	if err := yaml.Unmarshal(b, &chart); err != nil {
		return fmt.Errorf("charts folder %s: base/Chart.yaml: %w", dir, err)
	}
	has, err := semver.NewVersion(chart.AppVersion)
	if err != nil || (has.Major() == 1 && has.Minor() == 0) {
		return nil
	}
	if linked := semver.MustParse(LinkedVersion); has.Minor() != linked.Minor() {
		in.warnings = append(in.warnings, knownDifferences)
	}
	if has.Major() != want.Major() || has.Minor() != want.Minor() {
		return fmt.Errorf("charts folder %s: holds Istio %s, asked for %s", dir, chart.AppVersion, in.version)
	}
	return nil
}

func folderDigest(dir string) (string, error) {
	var lines []string
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }() // it was only read
	files := env.RootFS(root)
	err = fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(files, p)
		lines = append(lines, p+" "+sum(b))
		return err
	})
	sort.Strings(lines)
	return sum([]byte(strings.Join(lines, "\n"))), err
}

// refuseProfile names a profile that the charts do not have, with those they have.
func (in *renderInput) refuseProfile() error {
	if in.profile == "" {
		return nil
	}
	have, err := profileNames(in.charts)
	if err != nil {
		return err
	}
	for _, p := range have {
		if p == in.profile {
			return nil
		}
	}
	return fmt.Errorf("profile %q: not found; Istio %s has %s", in.profile, in.version, strings.Join(have, ", "))
}

// profileNames lists the profiles that a person may name. The compatibility
// profiles are chosen by compatibilityVersion, the platform ones by
// values.global.platform.
func profileNames(charts string) ([]string, error) {
	entries, err := fs.ReadDir(manifests.BuiltinOrDir(charts), "profiles")
	if err != nil {
		return nil, fmt.Errorf("profiles: %w", err)
	}
	var out []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".yaml")
		if ok && !strings.HasPrefix(name, "compatibility-version-") && !strings.HasPrefix(name, "platform-") {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out, nil
}

// addFile reads and validates one IstioOperator document, so that errors can
// name it: the library knows only one merged input.
func (in *renderInput) addFile(f File) error {
	if f.Content == nil {
		b, err := os.ReadFile(f.Name)
		if err != nil {
			return fmt.Errorf("file %w", err)
		}
		f.Content = b
	}
	name := f.Name
	if name == "" {
		name = "(given as text)"
	}
	docs := documents(f.Content)
	if len(docs) != 1 {
		return fmt.Errorf("file %s: %d documents; expected one IstioOperator", name, len(docs))
	}
	var doc struct {
		Kind string         `json:"kind"`
		Spec map[string]any `json:"spec"`
	}
	if err := plain.Written.Check(docs[0]); err != nil {
		return fmt.Errorf("file %s: %w", name, err)
	}
	if err := yaml.Unmarshal(docs[0], &doc); err != nil {
		return fmt.Errorf("file %s: %w", name, err)
	}
	if doc.Kind != "IstioOperator" {
		return fmt.Errorf("file %s: kind is %q; expected IstioOperator", name, doc.Kind)
	}
	if _, ok := doc.Spec["installPackagePath"]; ok {
		return fmt.Errorf("file %s: spec.installPackagePath: charts are chosen by the charts folder option, not by a file", name)
	}
	in.files = append(in.files, File{Name: name, Content: docs[0]})
	return nil
}

var documentBreak = regexp.MustCompile(`(?m)^---[ \t]*(#.*)?\r?$`)

// documents splits YAML text and drops documents of comments only.
func documents(b []byte) [][]byte {
	var out [][]byte
	for _, d := range documentBreak.Split(string(b), -1) {
		for _, l := range strings.Split(d, "\n") {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
				out = append(out, []byte(d))
				break
			}
		}
	}
	return out
}

var (
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
	wrongType    = regexp.MustCompile(`Go struct field (\S+) of type`)
)

// explain adds to the library's error which input it is about.
func (in *renderInput) explain(err error) error {
	for _, re := range []*regexp.Regexp{unknownField, wrongType} {
		m := re.FindStringSubmatch(err.Error())
		if m == nil {
			continue
		}
		field := m[1][strings.LastIndex(m[1], ".")+1:]
		gone := in.removal(field)
		if gone != "" {
			gone = " (" + gone + ")"
		}
		if from := in.mentions(field); from != "" {
			err = fmt.Errorf("%w%s", err, gone)
			return fmt.Errorf("%s: istio %s refuses it: %w", from, in.version, err)
		}
	}
	return fmt.Errorf("istio %s refuses it: %w", in.version, err)
}

// mentions tells which setting or file names a field; "" when none does.
func (in *renderInput) mentions(field string) string {
	for _, k := range in.setKeys {
		if strings.Contains("."+k+".", "."+field+".") {
			return fmt.Sprintf("set %q", k)
		}
	}
	for _, f := range in.files[1:] {
		if strings.Contains(string(f.Content), field) {
			return "file " + f.Name
		}
	}
	return ""
}
