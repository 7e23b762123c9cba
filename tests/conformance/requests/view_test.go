package requests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// answer is one normalized answer: its fields in order, one a line.
type answer struct {
	title string
	lines []line
}

type line struct{ field, value string }

func (a *answer) add(field, value string) {
	a.lines = append(a.lines, line{field, strings.ReplaceAll(value, "\n", "\\n")})
}

func (a *answer) fields() map[string]string {
	m := map[string]string{}
	for _, l := range a.lines {
		m[l.field] = l.value
	}
	return m
}

// absent is the value of a field that the object had in the answer before.
const absent = "(absent)"

// names replaces what two servers cannot have in common: uids, times,
// resourceVersions (their order stays), generated names, and addresses that
// the server allocated. One object's answers after the first are written as
// what changed since the one before.
type names struct {
	known   []line              // text -> symbol, in order of appearance
	counts  map[string]int      // symbols of a sort
	rvs     map[string][]uint64 // seen resourceVersions of an object, growing
	last    map[string]map[string]string
	listRV  uint64
	learned map[string]bool
}

func newNames() *names {
	return &names{counts: map[string]int{}, rvs: map[string][]uint64{}, last: map[string]map[string]string{}, learned: map[string]bool{}}
}

// learn gives a text a symbol, which replaces it wherever it appears.
func (n *names) learn(text, sort string) {
	if text == "" || n.learned[text] {
		return
	}
	n.learned[text] = true
	n.counts[sort]++
	n.known = append(n.known, line{text, fmt.Sprintf("<%s %d>", sort, n.counts[sort])})
	// A name that contains another one has to be replaced first.
	slices.SortStableFunc(n.known, func(a, b line) int { return len(b.field) - len(a.field) })
}

var (
	generated  = regexp.MustCompile(`^[a-z0-9]{5}$`)
	replicaSet = regexp.MustCompile(`ReplicaSet "[a-z0-9-]*-([a-z0-9]+)"`)

	uuid    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	sealed  = regexp.MustCompile(`-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----`)
	moment  = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	version = regexp.MustCompile(`(\\*"resourceVersion\\*":\\*"|(?i:resource ?version(?: in precondition| in object meta)?): "?|ResourceVersion in the precondition \(|in record \(|current: |old resource version: \d+ \()(\d+)`)
)

// text normalizes a string.
func (n *names) text(s string) string {
	for _, u := range uuid.FindAllString(s, -1) {
		n.learn(u, "uid")
	}
	for _, k := range n.known {
		s = strings.ReplaceAll(s, k.field, k.value)
	}
	s = version.ReplaceAllString(s, "$1<rv>")
	s = version.ReplaceAllString(s, "$1<rv>")
	s = sealed.ReplaceAllString(s, "<certificate>")
	return moment.ReplaceAllString(s, "<time>")
}

// study learns the generated names in an object before it is written.
func (n *names) study(obj map[string]any) {
	meta, _ := obj["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	labels, _ := meta["labels"].(map[string]any)
	for _, l := range []string{"pod-template-hash", "controller-revision-hash"} {
		if v, _ := labels[l].(string); v != "" {
			n.learn(v[strings.LastIndex(v, "-")+1:], "hash")
		}
	}
	if g, _ := meta["generateName"].(string); g != "" && generated.MatchString(strings.TrimPrefix(name, g)) {
		n.learn(strings.TrimPrefix(name, g), "suffix")
	}
	if items, ok := obj["items"].([]any); ok {
		for _, x := range items {
			if m, ok := x.(map[string]any); ok {
				n.study(m)
			}
		}
	}
	volumes, _ := lookup(obj, "spec.volumes").([]any)
	for _, v := range volumes {
		if s, _ := lookup(v, "name").(string); strings.HasPrefix(s, "kube-api-access-") {
			n.learn(s, "volume")
		}
	}
	conditions, _ := lookup(obj, "status.conditions").([]any)
	for _, c := range conditions {
		message, _ := lookup(c, "message").(string)
		if m := replicaSet.FindStringSubmatch(message); m != nil {
			n.learn(m[1], "hash")
		}
	}
	for _, path := range []string{"spec.clusterIP", "status.podIP", "status.hostIP"} {
		if s, ok := lookup(obj, path).(string); ok && strings.Contains(s, ".") {
			n.learn(s, "address")
		}
	}
	for _, path := range []string{"status.currentRevision", "status.updateRevision"} {
		if s, ok := lookup(obj, path).(string); ok {
			n.learn(s[strings.LastIndex(s, "-")+1:], "hash")
		}
	}
}

// object adds the lines of an object, a list or a Status.
func (n *names) object(a *answer, obj map[string]any, only []string) {
	n.study(obj)
	if only != nil {
		for _, p := range only {
			if p != "code" { // it is compared in any case
				n.flatten(a, p, lookup(obj, p))
			}
		}
		return
	}
	items, isList := obj["items"].([]any)
	if !isList {
		n.delta(a, "", obj)
		return
	}
	n.list(a, obj, items)
}

// list adds a list's own fields, the names of its items in order, and of each
// item what is not known of it yet.
func (n *names) list(a *answer, obj map[string]any, items []any) {
	own := maps.Clone(obj)
	delete(own, "items")
	meta := map[string]any{}
	if m, ok := obj["metadata"].(map[string]any); ok {
		meta = maps.Clone(m)
	}
	own["metadata"] = meta
	if s, ok := meta["resourceVersion"].(string); ok {
		meta["resourceVersion"] = n.listVersion(s, items)
	}
	if s, _ := meta["continue"].(string); s != "" {
		meta["continue"] = "<token>"
	}
	n.flatten(a, "", own)
	var list []string
	for _, x := range items {
		m, _ := x.(map[string]any)
		n.study(m)
		list = append(list, n.text(fmt.Sprint(lookup(m, "metadata.name"))))
	}
	a.add("items", strings.Join(list, " "))
	for i, x := range items {
		m, _ := x.(map[string]any)
		// Items of a typed list have no kind of their own; theirs is the list's.
		whole := maps.Clone(m)
		if whole["kind"] == nil {
			k, _ := obj["kind"].(string)
			whole["kind"], whole["apiVersion"] = strings.TrimSuffix(k, "List"), obj["apiVersion"]
		} else {
			a.add("items["+list[i]+"].kind", fmt.Sprint(whole["kind"]))
		}
		n.delta(a, "items["+list[i]+"]", whole)
	}
}

// listVersion says how a list's resourceVersion stands to those of its items
// and to the list before.
func (n *names) listVersion(s string, items []any) string {
	rv, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return s
	}
	for _, x := range items {
		v, _ := lookup(x, "metadata.resourceVersion").(string)
		if i, err := strconv.ParseUint(v, 10, 64); err == nil && i > rv {
			return "<older than an item>"
		}
	}
	if rv < n.listRV {
		return "<older than the list before>"
	}
	n.listRV = rv
	return "<rv>"
}

// version names an object's resourceVersion by its place among those seen.
func (n *names) version(uid, s string) string {
	rv, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return s
	}
	seen := n.rvs[uid]
	if i := slices.Index(seen, rv); i >= 0 {
		return fmt.Sprintf("<rv %d>", i+1)
	}
	if len(seen) > 0 && rv < seen[len(seen)-1] {
		return "<rv that went back>"
	}
	n.rvs[uid] = append(seen, rv)
	return fmt.Sprintf("<rv %d>", len(seen)+1)
}

// delta adds what differs from the last answer about the same object.
func (n *names) delta(a *answer, prefix string, obj map[string]any) {
	var flat answer
	n.flatten(&flat, "", n.versioned(obj))
	id := ""
	if kind, _ := obj["kind"].(string); kind != "Status" && kind != "Table" {
		id = fmt.Sprint(obj["apiVersion"], kind, lookup(obj, "metadata.namespace"), lookup(obj, "metadata.name"))
	}
	old, now := n.last[id], flat.fields()
	join := func(f string) string {
		if prefix != "" {
			return prefix + "." + f
		}
		return f
	}
	for _, l := range flat.lines {
		if v, ok := old[l.field]; !ok || v != l.value || id == "" {
			a.add(join(l.field), l.value)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(old)) {
		if _, ok := now[f]; !ok && id != "" {
			a.add(join(f), absent)
		}
	}
	if id != "" {
		n.last[id] = now
	}
}

// versioned is an object with its resourceVersion normalized.
func (n *names) versioned(obj map[string]any) map[string]any {
	meta, _ := obj["metadata"].(map[string]any)
	s, ok := meta["resourceVersion"].(string)
	if !ok {
		return obj
	}
	obj, meta = maps.Clone(obj), maps.Clone(meta)
	uid, _ := meta["uid"].(string)
	meta["resourceVersion"] = n.version(uid, s)
	obj["metadata"] = meta
	return obj
}

// flatten adds a value as lines, one a leaf, in order of the fields' names.
func (n *names) flatten(a *answer, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			a.add(path, "{}")
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			sub := k
			if strings.ContainsAny(k, "./ ") {
				sub = "[" + n.text(k) + "]"
			}
			if path != "" && !strings.HasPrefix(sub, "[") {
				sub = "." + sub
			}
			if path+sub == "metadata.managedFields" {
				n.managed(a, v[k])
				continue
			}
			n.flatten(a, path+sub, v[k])
		}
	case []any:
		scalars := !slices.ContainsFunc(v, func(x any) bool {
			switch x.(type) {
			case map[string]any, []any:
				return true
			}
			return false
		})
		if scalars {
			a.add(path, n.text(compact(v)))
			return
		}
		for i, x := range v {
			n.flatten(a, fmt.Sprintf("%s[%d]", path, i), x)
		}
	case string:
		a.add(path, n.text(strconv.Quote(v)))
	default:
		a.add(path, compact(v))
	}
}

// managed adds the managedFields, one entry a line. Their order is left out:
// it follows from their times.
func (n *names) managed(a *answer, v any) {
	list, _ := v.([]any)
	var lines []line
	for _, x := range list {
		m, _ := x.(map[string]any)
		id := fmt.Sprintf("metadata.managedFields[%v %v", m["manager"], m["operation"])
		if s := m["subresource"]; s != nil {
			id += fmt.Sprintf(" %v", s)
		}
		lines = append(lines, line{fmt.Sprintf("%s %v]", id, m["apiVersion"]), compact(n.keys(m["fieldsV1"]))})
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.field, b.field) })
	a.lines = append(a.lines, lines...)
}

// keys normalizes the keys of a tree, some of which name uids, so that they are
// in one order on all servers.
func (n *names) keys(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	out := map[string]any{}
	for k, x := range m {
		out[n.text(k)] = n.keys(x)
	}
	return out
}

func compact(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}

var token = regexp.MustCompile(`\[[^\]]*\]|[^.\[\]]+`)

// lookup reads a path of an object: names by dots, and in brackets a key of a
// map, or an index, name or type in a list. It is nil when there is none.
func lookup(v any, path string) any {
	for _, p := range token.FindAllString(path, -1) {
		key := strings.Trim(p, "[]")
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			v = element(x, key)
		default:
			return nil
		}
	}
	return v
}

func element(list []any, key string) any {
	if i, err := strconv.Atoi(key); err == nil {
		if i < len(list) {
			return list[i]
		}
		return nil
	}
	for _, x := range list {
		if m, ok := x.(map[string]any); ok && (m["name"] == key || m["type"] == key) {
			return x
		}
	}
	return nil
}

// holds reports whether an object meets a condition of until.
func holds(obj map[string]any, cond string) bool {
	path, want, _ := strings.Cut(cond, "=")
	path, not := strings.CutSuffix(path, "!")
	show := func(v any) string {
		if v == nil {
			return ""
		}
		return fmt.Sprint(v)
	}
	if strings.HasPrefix(want, ".") {
		want = show(lookup(obj, want[1:]))
	}
	return (show(lookup(obj, path)) == want) != not
}

// older is a resourceVersion before rv.
func older(rv string) string {
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil || n == 0 {
		return rv
	}
	return strconv.FormatUint(n-1, 10)
}
