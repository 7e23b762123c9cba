package requests

import "fmt"

// several creates ConfigMaps with the given labels.
func several(named ...string) []step {
	var out []step
	for i := 0; i+1 < len(named); i += 2 {
		out = append(out, create("configmaps", fmt.Sprintf(`{metadata: {name: %s, labels: {%s}}}`, named[i], named[i+1])))
	}
	return out
}

// secretly creates Secrets, of which a namespace has none by itself.
func secretly(named ...string) []step {
	out := several(named...)
	for _, st := range out {
		if q, ok := st.(*request); ok {
			q.path = "secrets"
		}
	}
	return out
}

func then(first []step, more ...step) []step { return append(first, more...) }

// mine leaves out the ConfigMap that the server puts into every namespace.
const mine = "fieldSelector=metadata.name!%3Dkube-root-ca.crt"

var abc = []string{"a", "app: web, tier: front", "b", "app: web, tier: back", "c", "app: db", "d", "empty: ''"}

// labelled is a case of label selectors.
func labelled(name string, selectors ...string) scenario {
	s := scenario{name: "selectors/label " + name, steps: several(abc...)}
	for _, l := range selectors {
		s.steps = append(s.steps, get("configmaps?"+mine+"&labelSelector="+l))
	}
	return s
}

var selectorCases = []scenario{
	labelled("equality", "app%3Dweb", "app%3D%3Dweb", "app!%3Dweb", "app%3Dweb,tier%3Dback", "app%3Dnone", "empty%3D"),
	labelled("sets", "app+in+(web,db)", "app+notin+(web)", "tier", "!tier", "tier+in+(front),app", "app+in+()"),
	labelled("order", "n>1", "n<1", "app>1"),
	labelled("malformed", "app%3D%3D%3Dx", "-bad%3Dx", "app%3Dbad+value", "app+in+web", ",", "app%3Dx%2Fy"),
	{name: "selectors/field of any kind", steps: then(several(abc...), get("configmaps?fieldSelector=metadata.name%3Da"), get("configmaps?fieldSelector=metadata.name!%3Da,metadata.name!%3Dkube-root-ca.crt"), get("configmaps?fieldSelector=metadata.namespace%3D$ns,metadata.name%3Db"), get("configmaps?fieldSelector=metadata.namespace%3Dother"), get("configmaps?fieldSelector=data.k%3Dv"), get("configmaps?fieldSelector=metadata.name"), get("configmaps?fieldSelector=metadata.labels%3Dx"))},
	{name: "selectors/field of pods", steps: []step{
		create("pods", `{metadata: {name: a}, spec: {schedulerName: nobody, restartPolicy: Never, containers: [{name: app, image: x}]}}`).with("code"), create("pods", `{metadata: {name: b}, spec: {schedulerName: nobody, serviceAccountName: default, containers: [{name: app, image: x}]}}`).with("code"),
		get("pods?fieldSelector=spec.restartPolicy%3DNever").with("items[a].metadata.name", "items[b].metadata.name"), get("pods?fieldSelector=status.phase%3DPending").with("items[0].metadata.name", "items[1].metadata.name"), get("pods?fieldSelector=spec.schedulerName%3Dnobody,metadata.name%3Db").with("items[0].metadata.name"),
		get("pods?fieldSelector=spec.nodeName%3D").with("items[0].metadata.name"), get("pods?fieldSelector=spec.nodeName%3Dnode-0").with("items"), get("pods?fieldSelector=spec.serviceAccountName%3Ddefault").with("items[1].metadata.name"), get("pods?fieldSelector=status.podIP%3D").with("items[1].metadata.name"), get("pods?fieldSelector=spec.hostNetwork%3Dfalse").with("items[1].metadata.name"), get("pods?fieldSelector=spec.image%3Dx"),
	}},
	{name: "selectors/field of others", steps: []step{
		create("secrets", `{metadata: {name: a}, type: example.test/x}`), create("secrets", `{metadata: {name: b}}`), get("secrets?fieldSelector=type%3Dexample.test/x"), get("secrets?fieldSelector=type%3DOpaque"), get("namespaces?fieldSelector=status.phase%3DActive,metadata.name%3D$ns").with("items[0].metadata.name"), get("deployments?fieldSelector=status.replicas%3D0"), get("services?fieldSelector=spec.clusterIP%3DNone"), get("services?fieldSelector=spec.type%3DClusterIP"),
	}},
	{name: "selectors/field of custom objects", steps: []step{create("widgets", `{metadata: {name: a}, spec: {color: red}}`), create("widgets", `{metadata: {name: b}, spec: {color: blue}}`), get("widgets?fieldSelector=spec.color%3Dred"), get("widgets?fieldSelector=spec.color!%3Dred"), get("widgets?fieldSelector=spec.size%3D1"), get("gadgets?fieldSelector=spec.mode%3Dx")}},
	{name: "selectors/events", steps: []step{
		create("events", `{metadata: {name: a}, involvedObject: {kind: Pod, name: p, namespace: $ns}, reason: Tested, type: Warning, message: m, source: {component: c}}`), get("events?fieldSelector=involvedObject.name%3Dp,reason%3DTested"), get("events?fieldSelector=involvedObject.kind%3DNode"), get("events?fieldSelector=type%3DWarning"), get("events?fieldSelector=source%3Dc"), get("events?fieldSelector=count%3D1"),
	}},
	{name: "selectors/all namespaces", steps: then(several("a", "only: $ns"), get("/api/v1/configmaps?labelSelector=only%3D$ns"), get("/api/v1/configmaps?fieldSelector=metadata.namespace%3D$ns,metadata.name%3Da"))},
	{name: "selectors/delete a collection", steps: then(several(abc...), del("configmaps?labelSelector=app%3Dweb&"+mine), get("configmaps?"+mine), del("configmaps?labelSelector=app%3D%3D%3D"), del("configmaps?fieldSelector=metadata.name%3Dc"), get("configmaps?"+mine), del("widgets"))},
}

var five = []string{"a", "x: z", "b", "x: z", "c", "x: z", "d", "x: z", "e", "x: z"}

var pagingCases = []scenario{
	{name: "paging/pages", steps: then(secretly(five...), get("secrets?limit=2").as("p1"), get("secrets?limit=2&continue=$continue(p1)").as("p2"), get("secrets?limit=2&continue=$continue(p2)"), get("secrets?limit=6"), get("secrets?limit=7"))},
	{name: "paging/with a selector", steps: then(secretly(five...), get("secrets?limit=2&labelSelector=x%3Dz").as("p1"), get("secrets?limit=2&labelSelector=x%3Dz&continue=$continue(p1)").as("p2"), get("secrets?limit=2&labelSelector=x%3Dz&continue=$continue(p2)"))},
	{name: "paging/across a creation", steps: then(secretly(five...), get("secrets?limit=3").as("p1"), create("secrets", `{metadata: {name: bb}}`), create("secrets", `{metadata: {name: dd}}`), get("secrets?limit=9&continue=$continue(p1)"), get("secrets"))},
	{name: "paging/across a deletion", steps: then(secretly(five...), get("secrets?limit=2").as("p1"), del("secrets/c"), del("secrets/a"), get("secrets?limit=2&continue=$continue(p1)").as("p2"), get("secrets?limit=9&continue=$continue(p2)"))},
	{name: "paging/across a change", steps: then(secretly(five...), get("secrets?limit=1").as("p1"), merge("secrets/e", `{data: {k: dg==}}`), get("secrets?limit=9&continue=$continue(p1)"), get("secrets/e"))},
	{name: "paging/bad tokens", steps: then(secretly(five...), get("secrets?continue=nonsense"), get("secrets?limit=1").as("p1"), get("secrets?limit=1&continue=$continue(p1)&resourceVersion=1"), get("secrets?limit=-1"), get("secrets?limit=x"), get("secrets?limit=0"))},
	{name: "paging/custom objects", steps: []step{create("widgets", `{metadata: {name: a}, spec: {}}`), create("widgets", `{metadata: {name: b}, spec: {}}`), create("widgets", `{metadata: {name: c}, spec: {}}`), get("widgets?limit=2").as("p1"), del("widgets/c"), get("widgets?limit=2&continue=$continue(p1)")}},
	{name: "paging/metadata only", steps: then(secretly(five...), get("secrets?limit=2").accepting("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").as("p1"), get("secrets?limit=2&continue=$continue(p1)").accepting("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"))},
	{name: "paging/versions of lists", steps: then(secretly("a", "x: z"), get("secrets?resourceVersion=0&labelSelector=x").with("code") /* any state that it once had; so, too, NotOlderThan, which comes after Exact */, get("secrets?resourceVersion=$rv(secrets/a)&resourceVersionMatch=Exact&labelSelector=x"),
		get("secrets?resourceVersion=$rv(secrets/a)&resourceVersionMatch=NotOlderThan&labelSelector=x"), get("secrets?resourceVersionMatch=Exact"), get("secrets?resourceVersion=0&resourceVersionMatch=Exact"), get("secrets?resourceVersion=1&resourceVersionMatch=Sometimes"), get("secrets?resourceVersion=x"), get("secrets?resourceVersion=x&resourceVersionMatch=Exact"))},
	{name: "paging/an exact version of the past", steps: then(secretly("a", "x: z"), merge("secrets/a", `{data: {k: dg==}}`).as("then"), merge("secrets/a", `{data: {k: dw==}}`), create("secrets", `{metadata: {name: b, labels: {x: z}}}`), get("secrets?labelSelector=x&resourceVersionMatch=Exact&resourceVersion=$rv(then)"), get("secrets?labelSelector=x&limit=1&resourceVersionMatch=Exact&resourceVersion=$rv(secrets/b)"))},
	{name: "paging/reads with a version", steps: then(secretly("a", "x: z"), get("secrets/a?resourceVersion=0").with("metadata.name"), get("secrets/a?resourceVersion=$rv(secrets/a)").with("metadata.name"), get("secrets/a?resourceVersion=x"))},
	{name: "paging/an empty list", steps: []step{get("widgets"), get("widgets?limit=1"), get("secrets"), get("/api/v1/namespaces/no-such-namespace/secrets"), get("/apis/conform.rutter.dev/v1/namespaces/no-such-namespace/widgets")}},
}

var watchCases = []scenario{
	{name: "watch/from a version", steps: []step{
		create("configmaps", plain).as("start"), watch("w", "configmaps?resourceVersion=$rv(start)"), merge("configmaps/a", `{data: {k: w}}`), create("configmaps", `{metadata: {name: b}}`), del("configmaps/b"), del("configmaps/a"), create("configmaps", `{metadata: {name: end}}`), events("w", "end"),
	}},
	{name: "watch/replays what was missed", steps: []step{create("configmaps", plain).as("start"), merge("configmaps/a", `{data: {k: w}}`), del("configmaps/a"), create("configmaps", plain), create("configmaps", `{metadata: {name: end}}`), watch("w", "configmaps?resourceVersion=$rv(start)"), events("w", "end")}},
	{name: "watch/from zero", steps: []step{create("secrets", `{metadata: {name: a}}`), create("secrets", `{metadata: {name: b}}`), get("secrets?resourceVersion=$rv(secrets/b)&resourceVersionMatch=NotOlderThan"), watch("w", "secrets?resourceVersion=0"), create("secrets", `{metadata: {name: end}}`), events("w", "end")}},
	{name: "watch/without a version", steps: []step{create("secrets", `{metadata: {name: a}}`), watch("w", "secrets"), merge("secrets/a", `{data: {k: dg==}}`), create("secrets", `{metadata: {name: end}}`), events("w", "end")}},
	{name: "watch/of one object", steps: []step{create("configmaps", plain).as("start"), watch("w", "configmaps?fieldSelector=metadata.name%3Da&resourceVersion=$rv(start)"), create("configmaps", `{metadata: {name: b}}`), merge("configmaps/a", `{data: {k: end}}`), events("w", "a")}},
	{name: "watch/by the name in the path", steps: []step{create("configmaps", plain).as("start"), watch("w", "/api/v1/watch/namespaces/$ns/configmaps/a?resourceVersion=$rv(start)"), merge("configmaps/a", `{data: {k: end}}`), events("w", "a")}},
	{name: "watch/objects enter and leave a selection", steps: []step{
		create("configmaps", `{metadata: {name: a, labels: {lit: "yes"}}}`).as("start"), watch("w", "configmaps?labelSelector=lit%3Dyes&resourceVersion=$rv(start)"), merge("configmaps/a", `{metadata: {labels: {lit: "no"}}}`), merge("configmaps/a", `{data: {k: v}}`), merge("configmaps/a", `{metadata: {labels: {lit: "yes"}}}`), del("configmaps/a"), create("configmaps", `{metadata: {name: end, labels: {lit: "yes"}}}`), events("w", "end"),
	}},
	{name: "watch/custom objects", steps: []step{create("widgets", `{metadata: {name: a}, spec: {}}`).as("start"), watch("w", "widgets?resourceVersion=$rv(start)"), merge("widgets/a/status", `{status: {phase: up}}`), merge("widgets/a", `{spec: {size: 3}}`), del("widgets/a"), create("widgets", `{metadata: {name: end}, spec: {}}`), events("w", "end")}},
	{name: "watch/another version of the kind", steps: []step{create("gadgets", `{metadata: {name: a}, spec: {}}`).as("start"), watch("w", "/apis/conform.rutter.dev/v1beta1/namespaces/$ns/gadgets?resourceVersion=$rv(start)"), merge("gadgets/a", `{spec: {mode: x}}`), events("w", "a")}},
	{name: "watch/metadata only", steps: []step{create("configmaps", plain).as("start"), merge("configmaps/a", `{data: {k: w}}`), get("configmaps/a").accepting("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), watch("w", "configmaps?resourceVersion=$rv(start)"), create("configmaps", `{metadata: {name: end}}`), events("w", "end")}},
	{name: "watch/too old", steps: []step{watch("w", "configmaps?resourceVersion=1"), watch("w", "widgets?resourceVersion=1")}},
	{name: "watch/bad versions", steps: []step{watch("w", "configmaps?resourceVersion=x"), watch("w", "configmaps?resourceVersion=-1"), watch("w", "configmaps?resourceVersionMatch=Exact&resourceVersion=1"), watch("w", "configmaps?sendInitialEvents=true"), watch("w", "configmaps?labelSelector=a%3D%3D%3Db"), watch("w", "configmaps?fieldSelector=data%3Db")}},
	{name: "watch/initial events and their bookmark", steps: []step{create("secrets", `{metadata: {name: a}}`), create("secrets", `{metadata: {name: b}}`), watch("w", "secrets?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"), get("secrets"), create("secrets", `{metadata: {name: end}}`), events("w", "end")}},
	{name: "watch/no initial events", steps: []step{create("secrets", `{metadata: {name: a}}`), watch("w", "secrets?sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), create("secrets", `{metadata: {name: end}}`), events("w", "end")}},
	{name: "watch/ends at its timeout", steps: []step{create("secrets", `{metadata: {name: a}}`).as("start"), watch("w", "secrets?resourceVersion=$rv(start)&timeoutSeconds=1"), events("w", "")}},
	{name: "watch/dry-run and refused writes are not seen", steps: []step{create("widgets", `{metadata: {name: a}, spec: {}}`).as("start"), watch("w", "widgets?resourceVersion=$rv(start)"), merge("widgets/a?dryRun=All", `{spec: {size: 2}}`), merge("widgets/a", `{spec: {size: 99}}`), merge("widgets/a", `{spec: {size: 1}}`), create("widgets", `{metadata: {name: end}, spec: {}}`), events("w", "end")}},
	{name: "watch/finalizers", steps: []step{create("configmaps", `{metadata: {name: a, finalizers: [x.test/y]}}`).as("start"), watch("w", "configmaps?resourceVersion=$rv(start)"), del("configmaps/a"), merge("configmaps/a", `{metadata: {finalizers: null}}`), create("configmaps", `{metadata: {name: end}}`), events("w", "end")}},
	{name: "watch/a deleted collection", steps: then(several("a", "x: z", "b", "x: z"), get("configmaps").as("start"), watch("w", "configmaps?labelSelector=x&resourceVersion=$rv(configmaps/b)"), del("configmaps?labelSelector=x%3Dz"), create("configmaps", `{metadata: {name: end, labels: {x: z}}}`), events("w", "end"))},
	{name: "watch/after compaction", alone: true, steps: then(several(five...), compaction{}, get("configmaps?limit=2&continue="+begunAtOne), get("configmaps?resourceVersionMatch=Exact&resourceVersion=1"), watch("w", "configmaps?resourceVersion=1"), get("configmaps/a"))},
}

// begunAtOne is the continue token of a list that was begun at version 1. A newer
// one would not do: the server's cache remembers more than its compacted store.
const begunAtOne = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0" // {"v":"meta.k8s.io/v1","rv":1,"start":"a\u0000"}

// compaction drops the server's history.
type compaction struct{}

func (compaction) do(r *runner) {
	if r.target.compact == nil {
		r.t.Fatalf("%s: its history cannot be compacted from here", r.target.name)
	}
	if err := r.target.compact(r.ctx); err != nil {
		r.t.Fatalf("%s: %v", r.target.name, err)
	}
}
