package gate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rutter.dev/rutter/runtime/cluster"
	"rutter.dev/rutter/runtime/effect"
)

func nodeJSON(name, cpu, more string) string {
	return `{"apiVersion":"v1","kind":"Node","metadata":{"name":"` + name + `","labels":{"zone":"` + name + `"}},"spec":{` + more + `},"status":{"allocatable":{"cpu":"` + cpu + `","memory":"8Gi","pods":"10"},"conditions":[{"type":"Ready","status":"True"}]}}`
}

func podOn(name, owner, node, cpu, phase string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `","namespace":"shop","labels":{"pod-template-hash":"h"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"` + owner + `-h","uid":"u","controller":true}]},
	"spec":{"nodeName":"` + node + `","containers":[{"name":"c","resources":{"requests":{"cpu":"` + cpu + `"}}}]},"status":{"phase":"` + phase + `"}}`
}

// deploy is Deployment web of shop; strategy is of its rolling update.
func deploy(replicas int, cpu, strategy, spec string, generation int) string {
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"shop","generation":%d},"spec":{"replicas":%d,"selector":{"matchLabels":{"app":"web"}},"strategy":{"rollingUpdate":{%s}},
	"template":{"metadata":{"labels":{"app":"web"}},"spec":{%s"containers":[{"name":"c","resources":{"requests":{"cpu":%q}}}]}}}}`, generation, replicas, strategy, spec, cpu)
}

func resourceQuota(hard, used string) string {
	return `{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"q","namespace":"shop"},"spec":{"hard":{` + hard + `}},"status":{"used":{` + used + `}}}`
}

func TestCapacity(t *testing.T) {
	const one, strict = `"maxSurge":1,"maxUnavailable":0`, `"maxSurge":3,"maxUnavailable":0`
	const loose = `"maxSurge":1,"maxUnavailable":1`
	rolls := func(strategy, spec string) *effect.Effect {
		return applied(t, deploy(4, "1", strategy, spec, 1), deploy(4, "1", strategy, spec, 2))
	}
	roomy, full := nodeJSON("n1", "4", ""), podOn("x", "x", "n1", "3500m", "Running")
	for name, c := range map[string]struct {
		e     *effect.Effect
		there []string
		want  Verdict
		says  string
	}{
		"room":                             {rolls(one, ""), []string{roomy}, Pass, ""},
		"no node":                          {rolls(one, ""), nil, Block, "of 0 nodes"},
		"no room":                          {rolls(one, ""), []string{roomy, full}, Block, "1 have less than 1 cpu free"},
		"no room, but it may go down":      {rolls(loose, ""), []string{roomy, full}, Warn, "as old pods go"},
		"room for some of the surge":       {rolls(strict, ""), []string{roomy, podOn("x", "x", "n1", "2500m", "Running")}, Warn, "only 1 of the 3"},
		"on two nodes":                     {rolls(`"maxSurge":2,"maxUnavailable":0`, ""), []string{roomy, full, nodeJSON("n2", "1", ""), nodeJSON("n3", "1", "")}, Pass, ""},
		"not enough on any of two":         {rolls(one, ""), []string{nodeJSON("n1", "500m", ""), nodeJSON("n2", "500m", "")}, Block, "2 have less"},
		"finished pods need nothing":       {rolls(one, ""), []string{roomy, podOn("x", "x", "n1", "3500m", "Succeeded")}, Pass, ""},
		"pods that wait come first":        {rolls(one, ""), []string{roomy, podOn("x", "x", "", "3500m", "Pending")}, Block, ""},
		"no place for another pod":         {rolls(one, ""), []string{strings.Replace(roomy, `"pods":"10"`, `"pods":"0"`, 1)}, Block, "pods free"},
		"larger than its template":         {rolls(one, ""), []string{roomy, podOn("w", "web", "n1", "2500m", "Running")}, Block, "less than 2500m cpu"},
		"cordoned":                         {rolls(one, ""), []string{nodeJSON("n1", "4", `"unschedulable":true`)}, Block, "1 don't take it"},
		"not ready":                        {rolls(one, ""), []string{strings.Replace(roomy, `"status":"True"`, `"status":"Unknown"`, 1)}, Block, "1 don't take it"},
		"tainted":                          {rolls(one, ""), []string{nodeJSON("n1", "4", `"taints":[{"key":"k","effect":"NoSchedule"}]`)}, Block, "1 don't take it"},
		"tainted, preferably":              {rolls(one, ""), []string{nodeJSON("n1", "4", `"taints":[{"key":"k","effect":"PreferNoSchedule"}]`)}, Pass, ""},
		"tainted and tolerated":            {rolls(one, `"tolerations":[{"key":"k","operator":"Exists"}],`), []string{nodeJSON("n1", "4", `"taints":[{"key":"k","effect":"NoSchedule"}]`)}, Pass, ""},
		"selects a node":                   {rolls(one, `"nodeSelector":{"zone":"n2"},`), []string{roomy}, Block, "1 don't take it"},
		"selects this node":                {rolls(one, `"nodeSelector":{"zone":"n1"},`), []string{roomy}, Pass, ""},
		"what is allocatable is not known": {rolls(one, ""), []string{`{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}`}, Block, "allocatable"},
		"surges by nothing":                {rolls(`"maxSurge":0,"maxUnavailable":1`, ""), nil, Pass, ""},
		"same generation, nothing rolls":   {applied(t, deploy(4, "1", one, "", 1), deploy(4, "1", one, "", 1)), nil, Pass, ""},
		"new":                              {applied(t, "", deploy(4, "1", one, "", 1)), []string{roomy}, Pass, ""},
		"new, room for some":               {applied(t, "", deploy(5, "1", one, "", 1)), []string{roomy}, Block, "only 4 of the 5"},
		"grows":                            {applied(t, deploy(1, "1", one, "", 1), deploy(4, "1", one, "", 2)), []string{roomy}, Pass, ""},
		"grows too far":                    {applied(t, deploy(1, "1", one, "", 1), deploy(6, "1", one, "", 2)), []string{roomy}, Block, "only 4 of the 5"},
		"deleted":                          {applied(t, deploy(1, "1", one, "", 1), ""), nil, Pass, ""},
		"scaled to none":                   {applied(t, deploy(1, "1", one, "", 1), deploy(0, "1", one, "", 2)), nil, Pass, ""},
		"not a workload":                   {applied(t, configMap, configMap), nil, Pass, ""},
		"quota bears it":                   {rolls(one, ""), []string{roomy, resourceQuota(`"requests.cpu":"5"`, `"requests.cpu":"4"`)}, Pass, ""},
		"quota of cpu":                     {rolls(one, ""), []string{roomy, resourceQuota(`"requests.cpu":"4500m"`, `"requests.cpu":"4"`)}, Block, "exceeded quota: q"},
		"quota of pods":                    {rolls(one, ""), []string{roomy, resourceQuota(`"pods":"4"`, `"pods":"4"`)}, Block, "exceeded quota: q"},
		"quota, but it may go down":        {rolls(loose, ""), []string{roomy, resourceQuota(`"pods":"4"`, `"pods":"4"`)}, Warn, "exceeded quota: q"},
		"quota of something else":          {rolls(one, ""), []string{roomy, resourceQuota(`"secrets":"1"`, `"secrets":"1"`)}, Pass, ""},
		"quota with injection":             {rolls(one, ""), []string{nodeJSON("n1", "9", ""), podOn("w", "web", "n1", "3", "Running"), resourceQuota(`"requests.cpu":"5"`, `"requests.cpu":"3"`)}, Block, "requested: requests.cpu=3"},
		"quota that is not counted yet":    {rolls(one, ""), []string{roomy, strings.Replace(resourceQuota(`"pods":"4"`, ``), `"status":{"used":{}}`, `"status":{}`, 1)}, Block, "not known yet"},
	} {
		t.Run(name, func(t *testing.T) {
			run := &Run{Forecast: true, Policy: &Policy{}, Seen: &Seen{}}
			got := judge(t, capacity, &fake{objects: objects(t, c.there...)}, run, c.e, c.want)
			if c.want != Pass && !strings.Contains(fmt.Sprint(got), c.says) {
				t.Errorf("findings don't say %q: %v", c.says, got)
			}
		})
	}
	judge(t, capacity, &fake{fail: cluster.ErrUnreachable}, &Run{Policy: &Policy{}}, rolls(one, ""), Block)
}

// Live, what was begun a moment ago has taken its room though no pod shows it
// yet; after a while the cluster is asked again. A forecast asks for itself and
// takes nothing.
func TestCapacityOfSeveral(t *testing.T) {
	e := applied(t, deploy(4, "3", `"maxSurge":1,"maxUnavailable":0`, "", 1), deploy(4, "3", `"maxSurge":1,"maxUnavailable":0`, "", 2))
	r := &fake{objects: objects(t, nodeJSON("n1", "4", ""))}
	run := &Run{Policy: &Policy{}, Rooms: &Rooms{}, Now: time.Unix(0, 0), Seen: &Seen{}, Forecast: true}
	judge(t, capacity, r, run, e, Pass)
	judge(t, capacity, r, run, e, Pass)
	if r.lists != 3 { // nodes and pods once, quotas once
		t.Errorf("%d lists for one forecast, want 3", r.lists)
	}
	run.Forecast, run.Seen = false, &Seen{}
	judge(t, capacity, r, run, e, Pass)
	run.Seen = &Seen{}
	judge(t, capacity, r, run, e, Block)
	run.Now, run.Seen = run.Now.Add(roomsAge), &Seen{}
	judge(t, capacity, r, run, e, Pass)
}
