package engine

import (
	"cmp"
	"context"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rutter.dev/rutter/runtime/cluster"
)

// secretMark stands where a secret stood.
const secretMark = "(secret)"

// credentials are what looks like one, whatever says it: each pattern with what
// of its match stays. A word like "token: expired" is no credential; "token=x"
// and "password: x" are.
var credentials = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----|$)`), "$1" + secretMark + "$2"},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?`), secretMark}, // JSON Web Token (RFC 7519)
	{regexp.MustCompile(`(?i)\b(bearer|basic)(\s+)[A-Za-z0-9+/=._~-]{8,}`), "$1$2" + secretMark},
	{regexp.MustCompile(`\b(AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|AGE-SECRET-KEY-1[0-9A-Z]+)\b`), secretMark},
	{regexp.MustCompile(`(://[^/\s:@]*:)[^@/\s]+@`), "${1}" + secretMark + "@"},
	{regexp.MustCompile(`(?i)((?:password|passwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)["']?=["']?)[^\s"',;&()]{4,}`), "${1}" + secretMark},
	{regexp.MustCompile(`(?i)((?:password|passwd|api[_-]?key|access[_-]?key)["']?:\s*["']?)[^\s"',;&()]{4,}`), "${1}" + secretMark},
	{regexp.MustCompile(`(?i)("[a-z_-]*(?:secret|token)"\s*:\s*")[^"(]{4,}"`), "${1}" + secretMark + `"`},
}

// redactor takes out of a text what looks like a credential, and the values of
// the Secrets that it was shown.
type redactor struct{ values []string }

// least is the length from which a value is told from other text.
const least = 6

// learn remembers a Secret's values: plain, as they are encoded, and line by line.
func (r *redactor) learn(secret *cluster.Object) {
	data, _, _ := unstructured.NestedStringMap(secret.Object, "data") // nothing to learn of what is malformed
	for _, v := range data {
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
			r.learnValue(string(plain), v)
		}
	}
}

// learnValue remembers one value, and how it is encoded.
func (r *redactor) learnValue(plain, encoded string) {
	for _, s := range append(strings.Split(plain, "\n"), encoded, plain) {
		if s = strings.TrimSpace(s); len(s) >= least {
			r.values = append(r.values, s)
		}
	}
	slices.SortFunc(r.values, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
	r.values = slices.Compact(r.values)
}

// learnOf remembers the Secrets that a pod is given. What may not be read can't
// be known by its value; what looks like a credential is taken out all the same.
func (r *redactor) learnOf(ctx context.Context, c cluster.Reader, pod *cluster.Object) {
	for _, name := range secretsOf(pod.Object["spec"]) {
		ref := cluster.Ref{Version: "v1", Kind: "Secret", Namespace: pod.GetNamespace(), Name: name}
		if o, err := c.Get(ctx, ref); err == nil {
			r.learn(o)
		}
	}
}

// secretsOf are the names of the Secrets that a pod's spec refers to: by
// volumes, projected ones too, and by the environment of containers.
func secretsOf(v any) []string {
	var out []string
	var walk func(key string, v any)
	walk = func(key string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(key, e)
			}
		case map[string]any:
			field := map[string]string{"secret": "secretName", "secretKeyRef": "name", "secretRef": "name"}[key]
			for _, f := range []string{field, "name"} {
				if name, ok := v[f].(string); ok && field != "" {
					out = append(out, name)
					break
				}
			}
			for k, e := range v {
				walk(k, e)
			}
		}
	}
	walk("", v)
	slices.Sort(out)
	return slices.Compact(out)
}

// text is s without what is secret.
func (r *redactor) text(s string) string {
	for _, v := range r.values { // the longest first
		s = strings.ReplaceAll(s, v, secretMark)
	}
	for _, c := range credentials {
		s = c.re.ReplaceAllString(s, c.with)
	}
	return s
}

// tail is the end of a text, at most n bytes of it, of whole lines where there
// are any, each cut to a bearable length.
func tail(s string, n int) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if len(l) > evidenceLine {
			lines[i] = strings.ToValidUTF8(l[:evidenceLine], "") + "…"
		}
	}
	s = strings.Join(lines, "\n")
	if len(s) <= n {
		return s
	}
	s = s[len(s)-n:]
	if _, rest, ok := strings.Cut(s, "\n"); ok {
		s = rest
	}
	return "…\n" + strings.ToValidUTF8(s, "")
}

// head is the beginning of a text, at most n bytes of it.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "\n… the rest is left out: there was more than is kept\n"
}
