package restart

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/diag"
)

// badWorkload is a workload that a restart stops at.
type badWorkload struct {
	it  *item
	why string
	// evidence is what else is known: conditions, containers, the last event.
	evidence []string
}

// Error implements error.
func (e *badWorkload) Error() string {
	return e.it.t.Ref.String() + ": " + e.why + after("; ", strings.Join(e.evidence, "; "))
}

// lost makes the error about a workload, with what the cluster says about it.
func (d *driver) lost(it *item, why string, own []*cluster.Object) error {
	e := &badWorkload{it: it, why: why}
	if it.now != nil {
		for _, kind := range []string{"Progressing", "Available"} {
			if c, ok := cluster.Condition(it.now, kind); ok && c.Status != "True" {
				e.evidence = append(e.evidence, fmt.Sprintf("%s is %s%s", kind, c.Status, after(": ", c.Message)))
			}
		}
	}
	names := map[string]bool{it.t.Ref.Name: true}
	for _, p := range own {
		names[p.GetName()] = true
		if state := trouble(p); state != "" && !strings.Contains(why, state) && it.t.renewed(p) {
			e.evidence = append(e.evidence, state)
			break
		}
	}
	if last := d.lastWarning(it.t.Ref.Namespace, names); last != "" {
		e.evidence = append(e.evidence, "last event: "+last)
	}
	return e
}

// lastWarning is the newest warning event about one of the named objects. It is
// evidence for a person and best effort: that events can't be read must not
// hide the failure itself, so it says so in their place.
func (d *driver) lastWarning(namespace string, names map[string]bool) string {
	out, newest := "", ""
	err := listAll(d.c, schema.GroupVersionKind{Version: "v1", Kind: "Event"}, namespace, func(o *cluster.Object) error {
		if text(o, "type") != "Warning" || !names[text(o, "involvedObject", "name")] {
			return nil
		}
		at := text(o, "lastTimestamp")
		if at == "" {
			at = text(o, "eventTime")
		}
		if at >= newest {
			newest, out = at, fmt.Sprintf("%s: %s", text(o, "reason"), text(o, "message"))
		}
		return nil
	})
	if err != nil {
		return "events cannot be read: " + err.Error()
	}
	return out
}

// stopped lays out why a wave stopped and where everything stands. Refusals of
// gates and cancellation stay what they are below it.
func (d *driver) stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	where := d.standing(err)
	var bad *badWorkload
	if !errors.As(err, &bad) {
		return fmt.Errorf("wave %s: %w (%s)", d.wave.Name, err, where)
	}
	ref := bad.it.t.Ref
	next := "kubectl "
	if ref.Namespace != "" {
		next += "-n " + ref.Namespace + " "
	}
	return &diag.Error{
		Subject: ref.String(),
		Problem: fmt.Sprintf("wave %s stops here: %s%s; %s", d.wave.Name, bad.why, after("; ", strings.Join(bad.evidence, "; ")), where),
		Expect:  "a workload that is ready again within the timeout, with the proxy that it was restarted for",
		Next:    next + "describe " + strings.ToLower(ref.Kind) + "/" + ref.Name,
	}
}

// standing says what was restarted, what is still rolling, and what was not begun.
func (d *driver) standing(err error) string {
	var bad *badWorkload
	errors.As(err, &bad)
	list := func(items []*item) string {
		var names []string
		for _, it := range items {
			if bad == nil || it.t != bad.it.t {
				names = append(names, it.t.Ref.Namespace+"/"+it.t.Ref.Name)
			}
		}
		return some(names)
	}
	var later []string
	begun := false
	for _, w := range d.data.Waves {
		if begun {
			for _, n := range w.Targets {
				later = append(later, d.data.Targets[n].Ref.Namespace+"/"+d.data.Targets[n].Ref.Name)
			}
		}
		begun = begun || w.Name == d.wave.Name
	}
	var waiting []string
	for _, it := range d.waiting {
		waiting = append(waiting, it.t.Ref.Namespace+"/"+it.t.Ref.Name)
	}
	return fmt.Sprintf("restarted: %s; still rolling: %s; not begun: %s", list(d.done), list(d.flight), some(append(waiting, later...)))
}

// some names at most eight, and counts the rest.
func some(names []string) string {
	const most = 8
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
