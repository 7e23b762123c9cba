package gate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	x, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Times are given with their offset; Berlin puts its clock forward on
// 2026-03-29 at 01:00Z (02:00 → 03:00) and back on 2026-10-25 at 01:00Z
// (03:00 → 02:00).
func TestCalendarAt(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	night := Calendar{Windows: []Window{{Days: []time.Weekday{time.Saturday}, From: 22 * 60, To: 4 * 60, Zone: berlin}}}
	early := Calendar{Windows: []Window{{From: 2*60 + 30, To: 5 * 60, Zone: berlin}}}
	ends := Calendar{Windows: []Window{{From: 60, To: 2*60 + 30, Zone: berlin}}}
	gap := Calendar{Windows: []Window{{From: 2 * 60, To: 3 * 60, Zone: berlin}}}
	always := Calendar{Windows: []Window{{From: 0, To: 24 * 60, Zone: berlin}}}
	yearEnd := Freeze{From: at(t, "2026-12-18T17:00:00Z"), To: at(t, "2027-01-04T07:00:00Z"), Reason: "year end"}
	frozen := Calendar{Windows: always.Windows, Freezes: []Freeze{yearEnd}}
	onlyFreeze := Calendar{Freezes: []Freeze{yearEnd}}
	forever := Calendar{Freezes: []Freeze{{From: at(t, "2026-01-01T00:00:00Z"), To: at(t, "2036-01-01T00:00:00Z")}}}
	none := ""
	for name, c := range map[string]struct {
		c           Calendar
		t           string
		open        bool
		until, next string
	}{
		"nothing said":                           {Calendar{}, "2026-03-29T00:00:00Z", true, none, none},
		"Saturday night":                         {night, "2026-11-21T22:30:00+01:00", true, "2026-11-22T04:00:00+01:00", none},
		"and the morning after it":               {night, "2026-11-22T03:59:59+01:00", true, "2026-11-22T04:00:00+01:00", none},
		"the end is outside":                     {night, "2026-11-22T04:00:00+01:00", false, none, "2026-11-28T22:00:00+01:00"},
		"the same hours of another day":          {night, "2026-11-21T03:00:00+01:00", false, none, "2026-11-21T22:00:00+01:00"},
		"seen from another zone":                 {night, "2026-11-21T13:30:00-08:00", true, "2026-11-22T04:00:00+01:00", none},
		"a night of an hour less":                {night, "2026-03-29T00:59:00Z", true, "2026-03-29T02:00:00Z", none},
		"a night of an hour more":                {night, "2026-10-25T02:30:00Z", true, "2026-10-25T03:00:00Z", none},
		"the clock is put over its start":        {early, "2026-03-29T00:59:59Z", false, none, "2026-03-29T01:00:00Z"},
		"and it is open from then on":            {early, "2026-03-29T01:00:00Z", true, "2026-03-29T03:00:00Z", none},
		"the start comes twice: at the first":    {early, "2026-10-25T00:30:00Z", true, "2026-10-25T04:00:00Z", none},
		"and it stays open":                      {early, "2026-10-25T01:10:00Z", true, "2026-10-25T04:00:00Z", none},
		"the end comes twice: at the first":      {ends, "2026-10-25T00:30:00Z", false, none, "2026-10-26T00:00:00Z"},
		"and does not open again":                {ends, "2026-10-25T01:10:00Z", false, none, "2026-10-26T00:00:00Z"},
		"the clock is put over its end":          {ends, "2026-03-29T00:59:59Z", true, "2026-03-29T01:00:00Z", none},
		"the clock is put over all of it":        {gap, "2026-03-29T01:00:00Z", false, none, "2026-03-30T00:00:00Z"},
		"day after day without an end":           {always, "2026-03-29T00:59:00Z", true, none, none},
		"a freeze ends what is open":             {frozen, "2026-12-15T00:00:00Z", true, "2026-12-18T17:00:00Z", none},
		"in the freeze":                          {frozen, "2026-12-24T00:00:00Z", false, none, "2027-01-04T07:00:00Z"},
		"a freeze begins at its first instant":   {frozen, "2026-12-18T17:00:00Z", false, none, "2027-01-04T07:00:00Z"},
		"and is over at its last":                {frozen, "2027-01-04T07:00:00Z", true, none, none},
		"a freeze without windows":               {onlyFreeze, "2026-12-24T00:00:00Z", false, none, "2027-01-04T07:00:00Z"},
		"a freeze that is far":                   {onlyFreeze, "2026-03-01T00:00:00Z", true, none, none},
		"one of which no end is in sight":        {forever, "2026-03-01T00:00:00Z", false, none, none},
		"a window that the day before is not":    {Calendar{Windows: []Window{{Days: []time.Weekday{time.Monday}, From: 0, To: 60, Zone: zone(t, "Pacific/Auckland")}}}, "2026-06-28T12:30:00Z", true, "2026-06-28T13:00:00Z", none},
		"midnight that does not exist":           {Calendar{Windows: []Window{{From: 0, To: 60 * 2, Zone: zone(t, "America/Santiago")}}}, "2026-09-06T04:00:00Z", true, "2026-09-06T05:00:00Z", none},
		"the zone of half an hour":               {Calendar{Windows: []Window{{From: 0, To: 60, Zone: zone(t, "Australia/Lord_Howe")}}}, "2026-06-01T13:45:00Z", true, "2026-06-01T14:30:00Z", none},
		"windows that meet are one":              {Calendar{Windows: []Window{{From: 0, To: 60, Zone: time.UTC}, {From: 60, To: 120, Zone: time.UTC}}}, "2026-06-01T00:45:00Z", true, "2026-06-01T02:00:00Z", none},
		"a freeze inside a window divides it":    {Calendar{Windows: []Window{{From: 0, To: 600, Zone: time.UTC}}, Freezes: []Freeze{{From: at(t, "2026-06-01T02:00:00Z"), To: at(t, "2026-06-01T03:00:00Z")}}}, "2026-06-01T02:30:00Z", false, none, "2026-06-01T03:00:00Z"},
		"in the middle of the night at New Year": {night, "2027-01-02T23:30:00+01:00", true, "2027-01-03T04:00:00+01:00", none},
	} {
		t.Run(name, func(t *testing.T) {
			o := c.c.At(at(t, c.t))
			same := func(what string, got time.Time, want string) {
				if want == none && !got.IsZero() || want != none && !got.Equal(at(t, want)) {
					t.Errorf("%s %s, want %q", what, got, want)
				}
			}
			if o.Open != c.open {
				t.Errorf("open %v", o.Open)
			}
			same("until", o.Until, c.until)
			same("next", o.Next, c.next)
		})
	}
}

func TestWindowGate(t *testing.T) {
	nights := Calendar{
		Windows: []Window{{From: 22 * 60, To: 24 * 60, Zone: zone(t, "Europe/Berlin")}}, Warn: 30 * time.Minute,
		Freezes: []Freeze{{From: at(t, "2026-12-18T00:00:00+01:00"), To: at(t, "2027-01-04T00:00:00+01:00"), Reason: "year end"}},
	}
	e := &effect.Effect{Verb: effect.Apply, Class: effect.Plain, Ref: cluster.Ref{Version: "v1", Kind: "ConfigMap", Namespace: "shop", Name: "a"}}
	for name, c := range map[string]struct {
		now      string
		forecast bool
		earlier  int
		want     Verdict
		text     string
	}{
		"inside":                  {"2026-11-20T22:00:00+01:00", true, 0, Pass, ""},
		"outside":                 {"2026-11-20T21:59:00+01:00", true, 0, Block, "it is Fri 2026-11-20 21:59 Europe/Berlin, outside"},
		"outside, live":           {"2026-11-21T00:00:00+01:00", false, 0, Block, "outside"},
		"about to close":          {"2026-11-20T23:40:00+01:00", true, 0, Warn, "closes in 20m0s, at Sat 2026-11-21 00:00 Europe/Berlin"},
		"said once for a call":    {"2026-11-20T23:40:00+01:00", true, 1, Pass, ""},
		"and not at each change":  {"2026-11-20T23:40:00+01:00", false, 0, Pass, ""},
		"in the freeze":           {"2026-12-20T22:30:00+01:00", true, 0, Block, "frozen until Mon 2027-01-04 00:00 Europe/Berlin: year end"},
		"the last night before":   {"2026-12-17T23:59:59+01:00", false, 0, Pass, ""},
		"the first night after":   {"2027-01-04T22:00:00+01:00", false, 0, Pass, ""},
		"between freeze and open": {"2027-01-04T03:00:00+01:00", false, 0, Block, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Now: at(t, c.now), Forecast: c.forecast, Earlier: make([]*effect.Effect, c.earlier), Policy: &Policy{Calendar: nights}}
			fs := judge(t, window, nil, run, e, c.want)
			if c.text != "" && !strings.Contains(fs[0].Problem, c.text) {
				t.Errorf("got %v; want %q", fs, c.text)
			}
			if c.want == Block && !strings.Contains(fs[0].Expect, "the next is ") {
				t.Errorf("does not say when it opens: %q", fs[0].Expect)
			}
		})
	}
}

// What the policy makes of what gates find, through the one door that gates
// are judged by.
func TestPolicyAdjusts(t *testing.T) {
	now := at(t, "2026-06-01T00:00:00Z")
	e := &effect.Effect{Verb: effect.Delete, Class: effect.Eviction, Ref: cluster.Ref{Version: "v1", Kind: "Pod", Namespace: "shop", Name: "web-0"}}
	waiver := func(change func(*Waiver)) []Waiver {
		w := Waiver{Gate: Scope, Objects: []string{"shop/*"}, Person: "ada", Reason: "agreed", Expires: now.Add(time.Hour)}
		if change != nil {
			change(&w)
		}
		return []Waiver{w}
	}
	denied := []Rules{{Verbs: []string{"delete"}}}
	for name, c := range map[string]struct {
		p    Policy
		run  Run
		fail error
		code Code
		want Verdict
		text string
	}{
		"no waiver":              {p: Policy{Deny: denied}, code: Scope, want: Block, text: "denied by the policy"},
		"waived":                 {p: Policy{Deny: denied, Waivers: waiver(nil)}, code: Scope, want: Warn, text: "waived by ada until 2026-06-01 01:00 UTC: agreed"},
		"another object":         {p: Policy{Deny: denied, Waivers: waiver(func(w *Waiver) { w.Objects = []string{"other/*", "web-0"} })}, code: Scope, want: Block},
		"another kind":           {p: Policy{Deny: denied, Waivers: waiver(func(w *Waiver) { w.Kinds = []string{"Deployment"} })}, code: Scope, want: Block},
		"the kind":               {p: Policy{Deny: denied, Waivers: waiver(func(w *Waiver) { w.Kinds = []string{"pod"} })}, code: Scope, want: Warn},
		"another gate":           {p: Policy{Deny: denied, Waivers: waiver(func(w *Waiver) { w.Gate = Disruption })}, code: Scope, want: Block},
		"expired":                {p: Policy{Deny: denied, Waivers: waiver(func(w *Waiver) { w.Expires = now })}, code: Scope, want: Block, text: "the waiver of ada expired at 2026-06-01 00:00 UTC"},
		"expired and another":    {p: Policy{Deny: denied, Waivers: append(waiver(func(w *Waiver) { w.Expires = now }), waiver(nil)...)}, code: Scope, want: Warn},
		"required":               {p: Policy{Deny: denied, Waivers: waiver(nil), Required: []Code{Scope}}, code: Scope, want: Block},
		"not RUT001":             {p: Policy{ProtectedContexts: []string{"prod"}, Waivers: waiver(func(w *Waiver) { w.Gate = ClusterPinned })}, code: ClusterPinned, want: Block, text: "protected"},
		"a warning of it blocks": {p: Policy{Calendar: closing(now), Required: []Code{ChangeWindow}}, run: Run{Forecast: true}, code: ChangeWindow, want: Block},
		"but not a rollback":     {p: Policy{Calendar: closing(now), Required: []Code{ChangeWindow}}, run: Run{Forecast: true, Rollback: true}, code: ChangeWindow, want: Warn},
		"unknown":                {fail: errors.New("timeout"), code: Disruption, want: Block, text: "could not find out"},
		"unknown, ask":           {p: Policy{AskUnknown: true}, fail: errors.New("timeout"), code: Disruption, want: Ask},
		"but not which cluster":  {p: Policy{AskUnknown: true}, fail: errors.New("timeout"), code: ClusterPinned, want: Block},
		"unknown and required":   {p: Policy{AskUnknown: true, Required: []Code{Disruption}}, fail: errors.New("timeout"), code: Disruption, want: Block},
		"unknown and waived":     {p: Policy{Waivers: waiver(func(w *Waiver) { w.Gate = Disruption })}, fail: errors.New("timeout"), code: Disruption, want: Warn},
	} {
		t.Run(name, func(t *testing.T) {
			run := c.run
			run.Policy, run.ClusterUID, run.Now, run.Facts = &c.p, "u", now, &effect.Facts{}
			one := *e
			one.Before = obj(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-0","namespace":"shop","ownerReferences":[{"kind":"ReplicaSet","name":"r","uid":"1","controller":true}]}}`)
			r := &fake{context: "prod", uid: "u", fail: c.fail}
			var got []Finding
			for _, f := range Judge(context.Background(), r, &run, &one) {
				if f.Code == c.code {
					got = append(got, f)
				}
			}
			if len(got) == 0 || Worst(got) != c.want || !strings.Contains(got[0].Problem, c.text) {
				t.Errorf("got %v, want %s with %q", got, c.want, c.text)
			}
			if waived := c.want == Warn && len(c.p.Waivers) > 0; waived && (got[0].Waived == nil || got[0].Waived.Person != "ada" || got[0].Waived.Was != Block) {
				t.Errorf("how it was waived is not kept: %+v", got[0].Waived)
			}
		})
	}
}

// closing is a calendar that is open and about to close.
func closing(now time.Time) Calendar {
	return Calendar{Freezes: []Freeze{{From: now.Add(time.Minute), To: now.Add(time.Hour)}}, Warn: time.Hour}
}

func TestWanted(t *testing.T) {
	p := Policy{Approvals: []Approval{
		{Step: "*apply*", People: []string{"ada", "grace", "joan"}, Count: 2},
		{Step: "*", People: []string{"ada"}, Count: 1},
		{Ask: true, Gates: []Code{Disruption}, People: []string{"ops"}, Count: 1},
		{Step: RollbackStep, People: []string{"joan"}, Count: 1},
	}}
	for name, c := range map[string]struct{ got, want int }{
		"by message":           {len(p.Wanted("approve: x", "apply Istio a/b to prod")), 2},
		"by step":              {len(p.Wanted("outer/approve: apply", "x")), 2},
		"neither":              {len(p.Wanted("approve: x", "x")), 1},
		"no run's step is one": {len(p.Wanted("rollback", "rollback")), 1},
		"a rollback":           {len(p.WantedOfRollback()), 1},
		"the gate":             {len(p.WantedOfLeave(Disruption)), 1},
		"another gate":         {len(p.WantedOfLeave(DryRun)), 0},
		"nobody yet":           {p.Approvals[0].Missing(nil), 2},
		"one, twice":           {p.Approvals[0].Missing([]string{"ada", "ada"}), 1},
		"a stranger":           {p.Approvals[0].Missing([]string{"ada", "eve"}), 1},
		"enough":               {p.Approvals[0].Missing([]string{"joan", "ada", "grace"}), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %d, want %d", name, c.got, c.want)
		}
	}
}
