package lib

import (
	"fmt"
	"math"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Settings are values for istioctl in the two forms that it takes: --set
// strings, and an IstioOperator document for what --set can't express.
type Settings struct {
	// Flags are "path=value" strings without the "--set", sorted by path.
	Flags []string
	// Overlay is an IstioOperator document to pass as the last -f file, or nil.
	// It holds the values whose type or text --set would change: a string that
	// looks like a number or a boolean, lists, null, keys with special characters.
	Overlay []byte
}

// NewSettings translates values to Settings. A top-level key is a path as
// --set takes it ("components.cni.enabled", "values.global.hub"); its value is
// a scalar, a list or a map. Keys inside a map are literal: their dots are
// escaped. Types are kept: the string "15" stays a string, where a plain --set
// would make it a number. The result does not depend on the map's order.
//
// Errors name the key: an empty one, a value of a type that YAML does not
// know, a path that is set twice, and installPackagePath, which would make
// Istio read charts from anywhere (RenderOptions.ChartsDir is the way).
func NewSettings(set map[string]any) (Settings, error) {
	var leaves []leaf
	for _, k := range sortedKeys(set) {
		path, err := splitSetPath(k)
		if err != nil {
			return Settings{}, err
		}
		found, err := flatten(path, set[k])
		if err != nil {
			return Settings{}, fmt.Errorf("set %q: %w", k, err)
		}
		leaves = append(leaves, found...)
	}
	sort.SliceStable(leaves, func(i, j int) bool { return leaves[i].path() < leaves[j].path() })
	if err := refuseOverlaps(leaves); err != nil {
		return Settings{}, err
	}
	var s Settings
	spec := map[string]any{}
	for _, l := range leaves {
		if flag, ok := l.flag(); ok {
			s.Flags = append(s.Flags, flag)
			continue
		}
		if err := l.put(spec); err != nil {
			return Settings{}, err
		}
	}
	if len(spec) > 0 {
		var err error
		if s.Overlay, err = operatorDocument(spec); err != nil {
			return Settings{}, err
		}
	}
	return s, nil
}

// operatorDocument wraps a spec into an IstioOperator document.
func operatorDocument(spec map[string]any) ([]byte, error) {
	b, err := yaml.Marshal(map[string]any{
		"apiVersion": "install.istio.io/v1alpha1",
		"kind":       "IstioOperator",
		"spec":       spec,
	})
	if err != nil {
		return nil, fmt.Errorf("set: %w", err)
	}
	return b, nil
}

// leaf is one value at one path. Segments are unescaped; a segment "[0]" or
// "[name:x]" selects from a list, as in --set.
type leaf struct {
	segs  []string
	value any
}

// path is the leaf's path in --set notation.
func (l leaf) path() string {
	var b strings.Builder
	for i, s := range l.segs {
		if strings.HasPrefix(s, "[") {
			b.WriteString(s)
			continue
		}
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(strings.ReplaceAll(s, ".", `\.`))
	}
	return b.String()
}

// flag is the leaf as a --set string; false when --set would change it.
func (l leaf) flag() (string, bool) {
	path := l.path()
	text, ok := scalarText(l.value)
	if !ok || text == "" || text != strings.TrimSpace(text) || strings.Contains(text, `\,`) {
		return "", false
	}
	for i, s := range l.segs {
		if s == "" || strings.ContainsAny(s, "=\\") || s != strings.TrimSpace(s) ||
			(i > 0 && !strings.HasPrefix(s, "[") && strings.Contains(s, "[")) {
			return "", false
		}
	}
	if path != filepath.Clean(path) { // the library cleans the path as if it were a file's
		return "", false
	}
	if _, isString := l.value.(string); isString != staysString(path, text) {
		return "", false
	}
	return path + "=" + text, true
}

// staysString tells whether the library's --set keeps text as a string: it
// tries integer, float and boolean first, except at a few paths that are
// always strings (operator/pkg/values, parseValue and alwaysString).
func staysString(path, text string) bool {
	for _, p := range []string{
		"values.compatibilityVersion", "tag", "values.global.tag", "compatibilityVersion",
		"meshConfig.defaultConfig.proxyMetadata.", "values.meshConfig.defaultConfig.proxyMetadata.",
	} {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	if _, err := strconv.Atoi(text); err == nil {
		return false
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return false
	}
	_, err := strconv.ParseBool(text)
	return err != nil
}

// scalarText is how a scalar is written in a --set string.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int:
		return strconv.Itoa(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), v != math.Trunc(v)
	}
	return "", false
}

// put stores the leaf into a nested map.
func (l leaf) put(spec map[string]any) error {
	m := spec
	for i, s := range l.segs {
		if strings.HasPrefix(s, "[") {
			return fmt.Errorf("set %q: a %T can't be set at a list index; put it into an IstioOperator file", l.path(), l.value)
		}
		if i == len(l.segs)-1 {
			m[s] = l.value
			return nil
		}
		next, ok := m[s].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[s] = next
		}
		m = next
	}
	return nil
}

// splitSetPath cuts a --set path at its unescaped dots and before its brackets.
func splitSetPath(path string) ([]string, error) {
	var segs []string
	var cur strings.Builder
	flush := func() error {
		if cur.Len() == 0 {
			return fmt.Errorf("set %q: empty path segment; expected a path such as components.cni.enabled", path)
		}
		segs = append(segs, cur.String())
		cur.Reset()
		return nil
	}
	depth := 0
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '\\' && i+1 < len(path) && path[i+1] == '.':
			cur.WriteByte('.')
			i++
		case c == '.' && depth == 0:
			if err := flush(); err != nil {
				return nil, err
			}
		case c == '[' && depth == 0 && cur.Len() > 0:
			if err := flush(); err != nil {
				return nil, err
			}
			depth++
			cur.WriteByte(c)
		case c == ']' && depth > 0:
			depth--
			cur.WriteByte(c)
		default:
			cur.WriteByte(c)
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if depth != 0 {
		return nil, fmt.Errorf("set %q: bracket is not closed", path)
	}
	if segs[0] == "installPackagePath" {
		return nil, fmt.Errorf("set %q: charts are chosen by the charts folder option, not by a setting", path)
	}
	return segs, nil
}

// flatten lists the leaves below a value: scalars, lists, and empty maps.
func flatten(segs []string, v any) ([]leaf, error) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return []leaf{{segs, v}}, nil
		}
		var out []leaf
		for _, k := range sortedKeys(v) {
			if k == "" {
				return nil, fmt.Errorf("empty key below %s", leaf{segs: segs}.path())
			}
			sub, err := flatten(append(append([]string(nil), segs...), k), v[k])
			if err != nil {
				return nil, err
			}
			out = append(out, sub...)
		}
		return out, nil
	case nil, string, bool, int, int64, float64:
		return []leaf{{segs, v}}, nil
	case []any:
		return []leaf{{segs, v}}, plainYAML(v)
	}
	return nil, fmt.Errorf("value is a %T; expected a string, number, boolean, list or map", v)
}

// plainYAML refuses list elements that YAML does not know.
func plainYAML(v any) error {
	switch v := v.(type) {
	case nil, string, bool, int, int64, float64:
		return nil
	case []any:
		for _, e := range v {
			if err := plainYAML(e); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, k := range sortedKeys(v) {
			if err := plainYAML(v[k]); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("list element is a %T; expected a string, number, boolean, list or map", v)
}

// refuseOverlaps reports a path that is set twice or lies below another one.
func refuseOverlaps(sorted []leaf) error {
	seen := map[string]string{}
	for _, l := range sorted {
		for n := 1; n < len(l.segs); n++ {
			if p := (leaf{segs: l.segs[:n]}).path(); seen[p] != "" {
				return fmt.Errorf("set %q: %q is set too; a value can't be both", l.path(), p)
			}
		}
		p := l.path()
		if seen[p] != "" {
			return fmt.Errorf("set %q: set twice", p)
		}
		seen[p] = p
	}
	return nil
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
