package plan

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

// HTML writes the plan as one file that needs nothing else: no script, no
// request to anywhere.
func (p *Plan) HTML(w io.Writer) error {
	return page.Execute(w, htmlPlan{
		Title: p.title(), Verdict: capital(p.verdict()) + ".", Error: p.Error, OK: p.Exit == 0, Timeline: p.timeline(), Plan: p,
		Budgets: budgetLines(p), Findings: lines(p.Findings, func(f *Found) string { return f.line() }), Asks: lines(p.Asks, func(a *Ask) string { return a.line() }),
		Irreversible: lines(p.Irreversible, func(i *Irreversible) string { return clean(i.Ref.String() + ": " + i.Why) }),
	})
}

type htmlPlan struct {
	Title, Verdict, Error                 string
	OK                                    bool
	Timeline                              timeline
	Plan                                  *Plan
	Budgets, Findings, Asks, Irreversible []string
}

// timeline is the plan drawn: a row for each step, wave and workload, along
// virtual time.
type timeline struct {
	Width, Height int
	Rows          []bar
	Ticks         []tick
	Left          int
}

type bar struct {
	Y, X, W  int
	Label    string
	Note     string
	Kind     string // step, wave, restart
	LabelX   int
	Emphasis bool
}

type tick struct {
	X     int
	Label string
}

const (
	rowHeight = 18
	labelsTo  = 330
	barsTo    = 1060
	drawnMost = 400 // workloads: more would be no picture
)

func (p *Plan) timeline() timeline {
	end := max(p.ends(), time.Second)
	x := func(at time.Duration) int { return labelsTo + int(float64(at)/float64(end)*(barsTo-labelsTo)) }
	t := timeline{Width: barsTo + 40, Left: labelsTo}
	y := 24
	add := func(kind, label, note string, at, d time.Duration, indent int) {
		t.Rows = append(t.Rows, bar{Y: y, X: x(at), W: max(2, x(at+d)-x(at)), Label: cut(label, 44), Note: label + ": " + note, Kind: kind, LabelX: 8 + 12*indent})
		y += rowHeight
	}
	drawn := 0
	restart := func(r *Restart, indent int) {
		if drawn++; drawn <= drawnMost {
			add("restart", r.workload(), restartLine(r), r.After, r.Duration, indent)
		}
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		add("step", clean(s.Name), strings.Join(stepNotes(s), ", "), s.After, s.Duration, s.Depth)
		for j := range p.Restarts {
			if r := &p.Restarts[j]; r.Wave == "" && r.Step == s.Path {
				restart(r, s.Depth+1)
			}
		}
		for _, w := range p.Waves {
			if w.Step != s.Path {
				continue
			}
			add("wave", "wave "+clean(w.Name), count(len(w.Workloads), "workload", "workloads")+", takes "+span(w.Duration), w.After, w.Duration, s.Depth+1)
			for j := range p.Restarts {
				if r := &p.Restarts[j]; r.Step == w.Step && r.Wave == w.Name {
					restart(r, s.Depth+2)
				}
			}
		}
	}
	for j := range p.Restarts {
		if r := &p.Restarts[j]; r.Step == "" {
			restart(r, 1)
		}
	}
	if drawn > drawnMost {
		add("step", fmt.Sprintf("and %d more workloads", drawn-drawnMost), "listed below", 0, 0, 0)
	}
	t.Height = y + 12
	unit := niceUnit(end)
	for at := time.Duration(0); at <= end; at += unit {
		t.Ticks = append(t.Ticks, tick{x(at), span(at)})
	}
	return t
}

// niceUnit is the distance of ticks: at most ten of them, at a round time.
func niceUnit(end time.Duration) time.Duration {
	for _, u := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 6 * time.Hour} {
		if end/u <= 10 {
			return u
		}
	}
	return time.Duration(math.Ceil(float64(end)/10/float64(24*time.Hour))) * 24 * time.Hour
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

var page = template.Must(template.New("plan").Funcs(template.FuncMap{
	"span": span, "fields": func(e Effect) []Field { return e.Fields }, "headline": func(e Effect) string { return e.headline() }, "sign": func(e Effect) string { return e.sign() },
	"workload": func(r Restart) string { return r.workload() }, "proxy": func(r Restart) string { return strings.TrimPrefix(r.proxy(), "proxy ") },
	"disruption": func(r Restart) string { return r.Disruption() }, "of": func(p *Plan, path string) []*Effect { return p.stepEffects(path) },
	"head": func(e *Effect) string { return e.headline() }, "mark": func(e *Effect) string { return e.sign() }, "add": func(a, b int) int { return a + b }, "clean": clean,
}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1120px;padding:0 1rem;color:#1c2733;background:#fff}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #d7dee6}
.ok{color:#14693a}.bad{color:#a3211a;white-space:pre-wrap}
table{border-collapse:collapse;width:100%} td,th{text-align:left;padding:.15rem .6rem .15rem 0;border-bottom:1px solid #eef1f4;vertical-align:top}
code,pre,.e{font:12px/1.5 ui-monospace,monospace} details{margin:.3rem 0} .f{color:#55616e;padding-left:2.2rem}
.plus{color:#14693a}.minus{color:#a3211a}.tilde{color:#8a5a00}
svg{width:100%;height:auto;font:11px system-ui,sans-serif} .step{fill:#7a8ba0}.wave{fill:#2f6fb3}.restart{fill:#f0a53a}
</style></head><body>
<h1>{{.Title}}</h1>
<p class="{{if .OK}}ok{{else}}bad{{end}}">{{.Verdict}}</p>
{{with .Error}}<p class="bad">{{.}}</p>{{end}}
<h2>Timeline</h2>
<svg viewBox="0 0 {{.Timeline.Width}} {{.Timeline.Height}}" role="img" aria-label="timeline of steps and waves">
{{$h := .Timeline.Height}}{{range .Timeline.Ticks}}<line x1="{{.X}}" y1="18" x2="{{.X}}" y2="{{$h}}" stroke="#e3e8ee"/><text x="{{.X}}" y="12" text-anchor="middle" fill="#55616e">{{.Label}}</text>
{{end}}{{range .Timeline.Rows}}<g><title>{{.Note}}</title><text x="{{.LabelX}}" y="{{add .Y 12}}">{{.Label}}</text><rect class="{{.Kind}}" x="{{.X}}" y="{{add .Y 3}}" width="{{.W}}" height="12" rx="2"/></g>
{{end}}</svg>
<h2>Steps and effects</h2>
{{$p := .Plan}}{{range .Plan.Steps}}{{$es := of $p .Path}}{{if $es}}<details><summary><b>{{clean .Path}}</b>: {{len $es}} effects, at {{span .After}}, takes {{span .Duration}}</summary>
{{range $es}}<div class="e"><span class="{{if eq (mark .) "+"}}plus{{else if eq (mark .) "-"}}minus{{else}}tilde{{end}}">{{mark .}}</span> {{head .}}</div>
{{if .Masked}}<div class="e f">a Secret: what changes is not shown</div>{{end}}{{range .Fields}}<div class="e f">{{.}}</div>
{{end}}{{end}}</details>{{else}}<div><b>{{clean .Path}}</b>: at {{span .After}}, takes {{span .Duration}}{{with .Error}} <span class="bad">{{clean .}}</span>{{end}}</div>{{end}}
{{end}}
{{if .Plan.Restarts}}<h2>Restarts</h2>
<table><tr><th>workload</th><th>wave</th><th>pods</th><th>proxy</th><th>at</th><th>takes</th><th>disruption</th><th>why</th></tr>
{{range .Plan.Restarts}}<tr><td>{{workload .}}</td><td>{{clean .Wave}}</td><td title="{{range .Pods}}{{.}} {{end}}">{{len .Pods}}</td><td>{{proxy .}}</td><td>{{span .After}}</td><td>{{span .Duration}}</td><td>{{disruption .}}</td><td>{{clean .Why}}</td></tr>
{{end}}</table>{{end}}
{{with .Budgets}}<h2>Budgets that hold it up</h2><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .Findings}}<h2>Findings of gates</h2><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .Asks}}<h2>Questions to a person</h2><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .Irreversible}}<h2>Can't be undone</h2><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{if .Plan.Assumptions}}<h2>Assumed</h2><ul>{{range .Plan.Assumptions}}<li>{{clean .String}}</li>{{end}}</ul>{{end}}
</body></html>
`))
