package policy

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"rutter.dev/rutter/runtime/effect"
	"rutter.dev/rutter/runtime/gate"
	"rutter.dev/rutter/runtime/toolchain"
)

// file is what a policy file says, with what is to be read beside it.
type file struct {
	policy    gate.Policy
	rules     []named // .star files, relative to the policy's folder
	zone      *time.Location
	toolchain toolchain.Rules
	// recipients of what is sealed
	recipients []string
}

// named is a text of the file and where it is.
type named struct {
	text string
	at   *node
}

// read reads the root of a policy file.
func (d *document) read(root *node) *file {
	f := &file{}
	p := &f.policy
	p.Calendar.Warn = defaultWarn
	var later []func() // what needs the file's zone, which may come last
	after := func(read func(*node)) func(*node) {
		return func(n *node) { later = append(later, func() { read(n) }) }
	}
	d.mapping(
		root,
		key{"protectedContexts", false, func(n *node) { p.ProtectedContexts = d.texts(n, "names of kubeconfig contexts") }},
		key{"allow", false, func(n *node) { p.Allow = d.rules(n) }},
		key{"deny", false, func(n *node) { p.Deny = d.rules(n) }},
		key{"singleReplicaLeave", false, func(n *node) { p.Leave = d.workloads(n) }},
		key{"maxWave", false, func(n *node) { p.MaxWave = d.count(n, 0, "workloads") }},
		key{"zone", false, func(n *node) { f.zone = d.zone(n) }},
		key{"windows", false, after(func(n *node) { p.Calendar.Windows = d.windows(n, f.zone) })},
		key{"freezes", false, after(func(n *node) { p.Calendar.Freezes = d.freezes(n, f.zone) })},
		key{"warnBefore", false, func(n *node) { p.Calendar.Warn = d.duration(n) }},
		key{"approvals", false, func(n *node) { p.Approvals = d.approvals(n) }},
		key{"requiredGates", false, func(n *node) { p.Required = d.gates(n) }},
		key{"waivers", false, after(func(n *node) { p.Waivers = d.waivers(n, f) })},
		key{"unknown", false, func(n *node) { p.AskUnknown = d.word(n, "block", "ask") == "ask" }},
		key{"prometheus", false, func(n *node) { p.Prometheus = d.prometheus(n) }},
		key{"thresholds", false, func(n *node) { p.Thresholds = d.thresholds(n) }},
		key{"notify", false, func(n *node) { p.Notify = d.notify(n) }},
		key{"signers", false, func(n *node) { p.Signers = d.text(n, "a file of allowed signers") }},
		key{"planSigners", false, func(n *node) { p.PlanSigners = d.text(n, "a file of allowed signers") }},
		key{"planRequired", false, func(n *node) { p.PlanRequired = d.word(n, "true", "false") == "true" }},
		key{"rules", false, func(n *node) { f.rules = d.ruleFiles(n) }},
		key{"toolchain", false, func(n *node) { f.toolchain = d.toolchain(n) }},
		key{"recipients", false, func(n *node) { f.recipients = d.recipients(n) }},
	)
	for _, read := range later {
		read()
	}
	return f
}

// defaultWarn is how long before its end a window is said to close.
const defaultWarn = 30 * time.Minute

func (d *document) rules(n *node) []gate.Rules {
	var out []gate.Rules
	d.list(n, func(c *node) {
		var r gate.Rules
		d.mapping(
			c,
			key{"namespaces", false, func(n *node) { r.Namespaces = d.namespaces(n) }},
			key{"kinds", false, func(n *node) { r.Kinds = d.patterns(n, "kinds such as Secret or Deployment.apps") }},
			key{"verbs", false, func(n *node) { r.Verbs = d.verbs(n) }},
		)
		out = append(out, r)
	})
	return out
}

// namespaces are patterns, of which "" stands for what has no namespace.
func (d *document) namespaces(n *node) []string {
	var out []string
	d.list(n, func(c *node) {
		if c.Value == "" && c.Tag == "!!str" && c.Anchor == "" {
			out = append(out, "")
			return
		}
		if s := d.pattern(c, `names of namespaces, "" for what has none`); s != "" {
			out = append(out, s)
		}
	})
	return out
}

// verbs refuses what would never match, and so silently allow what its author
// meant to deny.
func (d *document) verbs(n *node) []string {
	verbs := make([]string, 0, len(effect.Verbs()))
	for _, v := range effect.Verbs() {
		verbs = append(verbs, string(v))
	}
	known := strings.Join(verbs, ", ")
	var out []string
	d.list(n, func(c *node) {
		s := d.pattern(c, known)
		if s == "" {
			return
		}
		if !slices.ContainsFunc(verbs, func(v string) bool { ok, _ := path.Match(strings.ToLower(s), v); return ok }) {
			d.word(&node{c.Node, c.path}, verbs...)
			return
		}
		out = append(out, s)
	})
	return out
}

func (d *document) workloads(n *node) []string {
	const expect = "namespace/name, with wildcards"
	var out []string
	d.list(n, func(c *node) {
		s := d.pattern(c, expect)
		switch {
		case s == "":
		case strings.Count(s, "/") != 1:
			d.fail(c, fmt.Sprintf("%q is no namespace/name", s), expect)
		default:
			out = append(out, s)
		}
	})
	return out
}

// gates are codes of gates.
func (d *document) gates(n *node) []gate.Code {
	var out []gate.Code
	d.list(n, func(c *node) {
		if code := d.gate(c); code != "" {
			out = append(out, code)
		}
	})
	return out
}

func (d *document) gate(n *node) gate.Code {
	var codes []string
	byName := map[string]string{}
	for _, g := range gate.All() {
		codes = append(codes, string(g.Code))
		byName[g.Name] = string(g.Code)
	}
	if code := byName[n.Value]; code != "" {
		d.fail(n, fmt.Sprintf("gate %q is written by its code: %s", n.Value, code), "a code")
		return ""
	}
	return gate.Code(d.word(n, codes...))
}

func (d *document) people(n *node) []string {
	out := d.texts(n, "names of people")
	if len(n.Content) == 0 && n.Kind == sequenceNode {
		d.fail(n, "names nobody", "at least one person")
	}
	for i, p := range out {
		if strings.Contains(p, ",") {
			d.fail(n, fmt.Sprintf("%q has a comma in it", p), "names of single people")
		}
		if slices.Contains(out[:i], p) {
			d.fail(n, fmt.Sprintf("names %s twice", p), "each person once")
		}
	}
	return out
}

func (d *document) approvals(n *node) []gate.Approval {
	var out []gate.Approval
	d.list(n, func(c *node) {
		a := gate.Approval{Count: 1}
		var count, verdict *node
		d.mapping(
			c,
			key{"step", false, func(n *node) { a.Step = d.pattern(n, "a pattern of approve()'s step or message, or rollback") }},
			key{"verdict", false, func(n *node) { verdict, a.Ask = n, d.word(n, "ask") == "ask" }},
			key{"gates", false, func(n *node) { a.Gates = d.gates(n) }},
			key{"people", true, func(n *node) { a.People = d.people(n) }},
			key{"count", false, func(n *node) { count, a.Count = n, d.count(n, 1, "people") }},
		)
		switch {
		case c.Kind != mappingNode:
		case (a.Step == "") == (verdict == nil):
			d.fail(c, "has both or neither of step and verdict", "step: PATTERN for approve(), or verdict: ask for a gate that asks")
		case verdict == nil && len(a.Gates) > 0:
			d.fail(c, "gates go with verdict: ask", "step without gates")
		case count != nil && a.Count > len(a.People):
			d.fail(count, fmt.Sprintf("%d of %d people can never approve", a.Count, len(a.People)), fmt.Sprintf("at most %d", len(a.People)))
		}
		out = append(out, a)
	})
	return out
}

func (d *document) waivers(n *node, f *file) []gate.Waiver {
	var out []gate.Waiver
	d.list(n, func(c *node) {
		w := gate.Waiver{}
		var at *node
		d.mapping(
			c,
			key{"gate", true, func(n *node) { at, w.Gate = n, d.gate(n) }},
			key{"objects", true, func(n *node) { w.Objects = d.patterns(n, "namespace/name, or name of what has no namespace") }},
			key{"kinds", false, func(n *node) { w.Kinds = d.patterns(n, "kinds such as Deployment.apps") }},
			key{"person", true, func(n *node) { w.Person = d.text(n, "the name of who answers for it") }},
			key{"reason", true, func(n *node) { w.Reason = d.text(n, "why the finding is borne") }},
			key{"expires", true, func(n *node) { w.Expires = d.instant(n, zoneOr(f.zone, time.UTC), true) }},
		)
		if at != nil && w.Gate != "" && !f.policy.Waivable(w.Gate) {
			d.fail(at, fmt.Sprintf("%s can't be waived", w.Gate), "a gate but RUT001, RUT002 and those in requiredGates")
		}
		out = append(out, w)
	})
	return out
}

func zoneOr(a, b *time.Location) *time.Location {
	if a != nil {
		return a
	}
	return b
}

func (d *document) prometheus(n *node) *gate.Prometheus {
	p := &gate.Prometheus{Interval: defaultInterval}
	d.mapping(
		n,
		key{"url", true, func(n *node) { p.URL = d.url(n) }},
		key{"tokenFile", false, func(n *node) { p.TokenFile = d.text(n, "a file that holds a bearer token") }},
		key{"caFile", false, func(n *node) { p.CAFile = d.text(n, "a file of certificates") }},
		key{"interval", false, func(n *node) { p.Interval = d.duration(n) }},
		key{"queries", true, func(n *node) { p.Queries = d.queries(n) }},
	)
	return p
}

// defaultInterval is how often Prometheus is asked.
const defaultInterval = 30 * time.Second

func (d *document) queries(n *node) []gate.HealthQuery {
	var out []gate.HealthQuery
	d.list(n, func(c *node) {
		q := gate.HealthQuery{}
		var name *node
		d.mapping(
			c,
			key{"name", true, func(n *node) { name, q.Name = n, d.text(n, "a name") }},
			key{"query", true, func(n *node) { q.Query = d.text(n, "PromQL") }},
			key{"max", false, func(n *node) { q.Max = d.number(n) }},
			key{"min", false, func(n *node) { q.Min = d.number(n) }},
			key{"interval", false, func(n *node) { q.Interval = d.duration(n) }},
		)
		if c.Kind == mappingNode && len(d.errs) == 0 && q.Max == nil && q.Min == nil {
			d.fail(c, "has neither max nor min", "what the answer may be")
		}
		if q.Max != nil && q.Min != nil && *q.Min > *q.Max {
			d.fail(c, fmt.Sprintf("min %g is above max %g", *q.Min, *q.Max), "min at most max")
		}
		if slices.ContainsFunc(out, func(o gate.HealthQuery) bool { return o.Name == q.Name && q.Name != "" }) {
			d.fail(name, fmt.Sprintf("name %q comes twice", q.Name), "a name of its own for each query")
		}
		out = append(out, q)
	})
	return out
}

func (d *document) url(n *node) string {
	const expect = "a URL such as https://prometheus.example.com"
	s := d.text(n, expect)
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		d.fail(n, fmt.Sprintf("%q is no http or https URL", withoutSecrets(s)), expect)
		return ""
	case u.User != nil:
		d.fail(n, "holds a password", "credentials in a file of their own")
		return ""
	}
	return s
}

// withoutSecrets is what can be shown of a URL that did not parse.
func withoutSecrets(s string) string {
	if i := strings.LastIndex(s, "@"); i >= 0 {
		return "…" + s[i:]
	}
	return s
}

func (d *document) thresholds(n *node) gate.Thresholds {
	var t gate.Thresholds
	d.mapping(
		n,
		key{"maxRestarts", false, func(n *node) { c := d.count(n, 0, "restarts"); t.MaxRestarts = &c }},
		key{"maxNotReady", false, func(n *node) { c := d.count(n, 0, "pods"); t.MaxNotReady = &c }},
	)
	return t
}

func (d *document) notify(n *node) []gate.Notify {
	var out []gate.Notify
	d.list(n, func(c *node) {
		t := gate.Notify{Kind: "webhook"}
		var name *node
		d.mapping(
			c,
			key{"name", true, func(n *node) { name, t.Name = n, d.text(n, "a name") }},
			key{"kind", false, func(n *node) { t.Kind = d.word(n, "webhook", "slack") }},
			key{"url", false, func(n *node) { t.URL = d.url(n) }},
			key{"urlFile", false, func(n *node) { t.URLFile = d.text(n, "a file that holds the URL") }},
			key{"on", false, func(n *node) {
				d.list(n, func(c *node) {
					if s := d.word(c, statuses()...); s != "" {
						t.On = append(t.On, s)
					}
				})
			}},
		)
		if c.Kind == mappingNode && has(c, "url") == has(c, "urlFile") {
			d.fail(c, "has both or neither of url and urlFile", "one of them; urlFile where the URL is a secret")
		}
		if slices.ContainsFunc(out, func(o gate.Notify) bool { return o.Name == t.Name && t.Name != "" }) {
			d.fail(name, fmt.Sprintf("name %q comes twice", t.Name), "a name of its own for each target")
		}
		out = append(out, t)
	})
	return out
}

// recipients reads age's public keys.
func (d *document) recipients(n *node) []string {
	const expect = "public keys of age, age1…"
	var out []string
	d.list(n, func(c *node) {
		s := d.text(c, expect)
		if s == "" {
			return
		}
		switch _, err := age.ParseX25519Recipient(s); {
		case strings.HasPrefix(strings.ToUpper(s), "AGE-SECRET-KEY-"):
			d.fail(c, "holds a private key", expect) // which is not shown
		case err != nil:
			d.fail(c, fmt.Sprintf("%q is no recipient", s), expect)
		case slices.Contains(out, s):
			d.fail(c, "comes twice", "each recipient once")
		default:
			out = append(out, s)
		}
	})
	return out
}

// toolchain reads from where istioctl may be fetched.
func (d *document) toolchain(n *node) toolchain.Rules {
	var r toolchain.Rules
	d.mapping(
		n,
		key{"mirror", false, func(n *node) { r.Mirror = d.url(n) }},
		key{"redirectHosts", false, func(n *node) { r.RedirectHosts = d.texts(n, "names of hosts") }},
		key{"trustOnFirstUse", false, func(n *node) { r.TrustOnFirstUse = d.word(n, "true", "false") == "true" }},
	)
	return r
}

// statuses are the ends of a run that can be told of.
func statuses() []string {
	return []string{"done", "failed", "refused", "interrupted", "in-doubt", "rolled-back"}
}

func has(n *node, name string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return true
		}
	}
	return false
}

func (d *document) ruleFiles(n *node) []named {
	const expect = "a .star file in the policy's folder"
	var out []named
	d.list(n, func(c *node) {
		s := d.text(c, expect)
		clean := path.Clean(s)
		switch {
		case s == "":
		case path.IsAbs(s) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsAny(s, "\\:\x00"):
			d.fail(c, fmt.Sprintf("%q lies outside of the policy's folder", s), expect)
		case !strings.HasSuffix(s, ".star"):
			d.fail(c, fmt.Sprintf("%q does not end in .star", s), expect)
		case slices.ContainsFunc(out, func(o named) bool { return o.text == clean }):
			d.fail(c, fmt.Sprintf("%q comes twice", s), "each file once")
		default:
			out = append(out, named{clean, c})
		}
	})
	return out
}
