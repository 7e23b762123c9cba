package access

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"rutter.dev/rutter/runtime/cluster"
)

// Document is roles to be printed.
type Document struct {
	Header []string // lines of a comment at the top
	Roles  []Role   // see Roles
}

// Objects are the roles and their bindings as Kubernetes objects.
func (d *Document) Objects() []runtime.Object {
	var out []runtime.Object
	for _, r := range d.Roles {
		out = append(out, r.object())
		if len(r.Subjects) > 0 {
			out = append(out, r.binding())
		}
	}
	return out
}

func (r *Role) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: r.Name, Namespace: r.Namespace}
}

func (r *Role) kind() string {
	if r.Namespace == "" {
		return "ClusterRole"
	}
	return "Role"
}

func (r *Role) object() runtime.Object {
	rules := make([]rbacv1.PolicyRule, len(r.Rules))
	for i, x := range r.Rules {
		rules[i] = x.PolicyRule
	}
	t := metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: r.kind()}
	if r.Namespace == "" {
		return &rbacv1.ClusterRole{TypeMeta: t, ObjectMeta: r.meta(), Rules: rules}
	}
	return &rbacv1.Role{TypeMeta: t, ObjectMeta: r.meta(), Rules: rules}
}

func (r *Role) binding() runtime.Object {
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: r.kind(), Name: r.Name}
	t := metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: r.kind() + "Binding"}
	if r.Namespace == "" {
		return &rbacv1.ClusterRoleBinding{TypeMeta: t, ObjectMeta: r.meta(), RoleRef: ref, Subjects: r.Subjects}
	}
	return &rbacv1.RoleBinding{TypeMeta: t, ObjectMeta: r.meta(), RoleRef: ref, Subjects: r.Subjects}
}

// JSON writes the objects as one List, as kubectl takes it.
func (d *Document) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": d.Objects()})
}

// YAML writes the objects, each rule below a comment that says for whom it is.
func (d *Document) YAML(w io.Writer) error {
	var b bytes.Buffer
	for _, line := range d.Header {
		b.WriteString(strings.TrimRight("# "+line, " ") + "\n")
	}
	for i, r := range d.Roles {
		if i > 0 {
			b.WriteString("---\n")
		}
		if err := r.yaml(&b); err != nil {
			return err
		}
		if len(r.Subjects) == 0 {
			continue
		}
		y, err := yaml.Marshal(r.binding())
		if err != nil {
			return err
		}
		b.WriteString("---\n")
		b.Write(y)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (r *Role) yaml(b *bytes.Buffer) error {
	fmt.Fprintf(b, "apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n", rbacv1.SchemeGroupVersion, r.kind(), r.Name)
	if r.Namespace != "" {
		fmt.Fprintf(b, "  namespace: %s\n", r.Namespace)
	}
	b.WriteString("rules:\n")
	for _, x := range r.Rules {
		for _, line := range wrapped(why(x.By)) {
			b.WriteString("# " + line + "\n")
		}
		y, err := ordered(x.PolicyRule)
		if err != nil {
			return err
		}
		b.WriteString(y)
	}
	return nil
}

// ordered is a rule in the order in which people write it: group, resource,
// names, verbs.
func ordered(r rbacv1.PolicyRule) (string, error) {
	var b strings.Builder
	mark := "- "
	for _, f := range []struct {
		key    string
		values []string
	}{{"apiGroups", r.APIGroups}, {"resources", r.Resources}, {"resourceNames", r.ResourceNames}, {"nonResourceURLs", r.NonResourceURLs}, {"verbs", r.Verbs}} {
		if len(f.values) == 0 {
			continue
		}
		line, err := json.Marshal(f.values) // a flow sequence of YAML as well
		if err != nil {
			return "", err
		}
		b.WriteString(mark + f.key + ": " + strings.ReplaceAll(string(line), `","`, `", "`) + "\n")
		mark = "  "
	}
	return b.String(), nil
}

// host is who asks when neither a builtin nor a gate does.
const host = "rutter itself"

// lineWidth is where comments are wrapped.
const lineWidth = 100

// wrapped joins parts with commas to lines.
func wrapped(parts []string) []string {
	var out []string
	line := ""
	for i, p := range parts {
		if i < len(parts)-1 {
			p += ","
		}
		if line != "" && utf8.RuneCountInString(line)+utf8.RuneCountInString(p) >= lineWidth {
			out, line = append(out, line), ""
		}
		if line != "" {
			line += " "
		}
		line += p
	}
	return append(out, line)
}

// why says for whom a rule is: each builtin or gate, with its steps.
func why(by []cluster.Asker) []string {
	steps := map[string][]string{}
	for _, a := range by {
		name := cmp.Or(a.By, host)
		steps[name] = append(steps[name], a.Step)
	}
	var out []string
	for name, in := range steps {
		in = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(in))), func(s string) bool { return s == "" })
		if len(in) > 0 {
			name += " (" + strings.Join(in, ", ") + ")"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
