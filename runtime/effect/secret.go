package effect

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
)

// HoldsSecret reports whether the effect carries Secret material in its body
// or images.
func (e *Effect) HoldsSecret() bool { return e.Ref.Kind == "Secret" && e.Ref.Group == "" }

// minSecret is the shortest value that Redact looks for: shorter ones are parts
// of ordinary words.
const minSecret = 4

// Redact takes the values of a Secret out of text that came back from a
// server, whose admission may quote what it refuses. For any other object text
// is returned as it is.
func (e *Effect) Redact(text string) string {
	if !e.HoldsSecret() {
		return text
	}
	values := map[string]bool{}
	var body any
	if json.Unmarshal(e.Body, &body) == nil {
		collectValues(body, e.Verb == Patch, values)
	}
	if e.Before != nil {
		collectValues(e.Before.Object, false, values)
	}
	if e.After != nil {
		collectValues(e.After.Object, false, values)
	}
	var found []string
	for v := range values {
		found = append(found, v)
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
			found = append(found, string(plain))
		}
		found = append(found, base64.StdEncoding.EncodeToString([]byte(v)))
	}
	// The longest first, so that no part of a longer one is left over.
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	for _, v := range found {
		if len(v) >= minSecret {
			text = strings.ReplaceAll(text, v, "(secret)")
		}
	}
	return text
}

// collectValues gathers the strings below data and stringData; of a patch that
// is a list of operations, those below value.
func collectValues(v any, patch bool, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"data", "stringData"} {
			leaves(v[k], into)
		}
		if md, ok := v["metadata"].(map[string]any); ok {
			if a, ok := md["annotations"].(map[string]any); ok {
				leaves(a["kubectl.kubernetes.io/last-applied-configuration"], into)
			}
		}
	case []any:
		for _, op := range v {
			if m, ok := op.(map[string]any); ok && patch {
				leaves(m["value"], into)
			}
		}
	}
}

func leaves(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		into[v] = true
	case map[string]any:
		for _, inner := range v {
			leaves(inner, into)
		}
	case []any:
		for _, inner := range v {
			leaves(inner, into)
		}
	}
}
