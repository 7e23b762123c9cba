package requests

import "strings"

// verbs is every verb × every kind: namespaced, cluster-scoped and custom.
func verbs() []scenario {
	var out []scenario
	for _, v := range verbTable {
		out = append(out, scenario{name: "verbs/" + v.plural, steps: v.steps()})
	}
	return out
}

// verbCase is a kind with an object of it and a change.
type verbCase struct {
	plural  string
	object  string // the object's fields beside its metadata
	change  string // a merge patch
	settled []string
}

func (v verbCase) steps() []step {
	k, _ := servedKind(v.plural)
	name := "a"
	switch {
	case v.plural == "customresourcedefinitions":
		name = "things.$ns.test"
	case !k.namespaced:
		name = "$ns-a"
	}
	one := v.plural + "/" + name
	object := "{metadata: {name: " + name + ", labels: {case: $ns}}" + comma(v.object) + "}"
	var st []step
	settle := func() {
		if v.settled != nil {
			st = append(st, until(one, v.settled...))
		}
	}
	st = append(
		st, get(one),
		create(v.plural+"?dryRun=All", object), create(v.plural, object), create(v.plural, object),
	)
	settle()
	st = append(
		st, get(one), get(v.plural+"?labelSelector=case%3D$ns"),
		update(one, "{metadata: {name: "+name+", labels: {case: $ns, put: x}, resourceVersion: \"$rv("+one+")\"}"+comma(v.object)+"}"),
	)
	settle()
	st = append(st, merge(one, v.change))
	settle()
	st = append(st, jsonPatch(one, `[{op: add, path: /metadata/annotations, value: {json: patch}}]`))
	settle()
	st = append(
		st, apply("one", one, "{metadata: {name: "+name+", labels: {applied: x}}}"),
		get(one).accepting("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
		del(one+"?dryRun=All"), del(one), get(one).untilGone(), del(one),
	)
	return st
}

func comma(fields string) string {
	if fields = strings.TrimSpace(fields); fields == "" {
		return ""
	}
	return ", " + fields
}

const (
	podSpec     = `{containers: [{name: app, image: "example/app:1"}]}`
	podTemplate = `{metadata: {labels: {app: a}}, spec: ` + podSpec + `}`
	rules       = `[{apiGroups: [""], resources: [pods], verbs: [get, list]}]`
)

var observed = []string{"status.observedGeneration=.metadata.generation"}

var verbTable = []verbCase{
	{"configmaps", `data: {a: "1"}`, `{data: {b: "2"}}`, nil},
	{"secrets", `stringData: {a: secret}`, `{data: {b: Mg==}}`, nil},
	{"serviceaccounts", ``, `{automountServiceAccountToken: false}`, nil},
	{"services", `spec: {selector: {app: a}, ports: [{port: 80}]}`, `{spec: {sessionAffinity: ClientIP}}`, nil},
	{"pods", `spec: {schedulerName: nobody, containers: [{name: app, image: "example/app:1"}]}`, `{spec: {containers: [{name: app, image: "example/app:2"}]}}`, nil},
	{"podtemplates", `template: ` + podTemplate, `{template: {spec: {hostNetwork: true}}}`, nil},
	{"replicationcontrollers", `spec: {replicas: 0, template: ` + podTemplate + `}`, `{spec: {minReadySeconds: 3}}`, observed},
	{"endpoints", `subsets: [{addresses: [{ip: 10.0.0.7}], ports: [{port: 80}]}]`, `{subsets: [{addresses: [{ip: 10.0.0.8}], ports: [{port: 81}]}]}`, nil},
	{"limitranges", `spec: {limits: [{type: Container, default: {cpu: 100m}}]}`, `{spec: {limits: [{type: Container, default: {cpu: 0.5}}]}}`, nil},
	{"namespaces", ``, `{metadata: {labels: {istio-injection: enabled}}}`, nil},
	{"deployments", `spec: {replicas: 0, selector: {matchLabels: {app: a}}, template: ` + podTemplate + `}`, `{spec: {minReadySeconds: 3}}`, append(observed, "status.conditions[Progressing].reason=NewReplicaSetAvailable")},
	{"replicasets", `spec: {replicas: 0, selector: {matchLabels: {app: a}}, template: ` + podTemplate + `}`, `{spec: {minReadySeconds: 3}}`, observed},
	{"statefulsets", `spec: {replicas: 0, serviceName: a, selector: {matchLabels: {app: a}}, template: ` + podTemplate + `}`, `{spec: {minReadySeconds: 3}}`, observed},
	{"daemonsets", `spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {nodeSelector: {nope: node}, containers: [{name: app, image: "example/app:1"}]}}}`, `{spec: {minReadySeconds: 3}}`, observed},
	{"controllerrevisions", `data: {any: thing}, revision: 1`, `{revision: 2}`, nil},
	{"jobs", `spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: app, image: "example/app:1"}]}}}`, `{spec: {parallelism: 2}}`, []string{"status.conditions[Suspended].status=True"}},
	{"cronjobs", `spec: {suspend: true, schedule: "0 3 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: app, image: "example/app:1"}]}}}}}`, `{spec: {schedule: "0 4 * * *"}}`, nil},
	{"poddisruptionbudgets", `spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}`, `{spec: {minAvailable: 2}}`, observed},
	{"roles", `rules: ` + rules, `{rules: []}`, nil},
	{"rolebindings", `roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: a}, subjects: [{kind: User, name: ann}]`, `{subjects: [{kind: Group, name: ops}]}`, nil},
	{"clusterroles", `rules: ` + rules, `{rules: [{nonResourceURLs: [/healthz], verbs: [get]}]}`, nil},
	{"clusterrolebindings", `roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{kind: ServiceAccount, name: a, namespace: $ns}]`, `{subjects: null}`, nil},
	{"mutatingwebhookconfigurations", `webhooks: [{name: a.conform.test, clientConfig: {url: "https://127.0.0.1:1/x"}, sideEffects: None, admissionReviewVersions: [v1], rules: [{apiGroups: [none.test], apiVersions: ["*"], operations: [CREATE], resources: [things]}]}]`, `{metadata: {labels: {istio.io/rev: canary}}}`, nil},
	{"validatingwebhookconfigurations", `webhooks: [{name: a.conform.test, clientConfig: {service: {name: a, namespace: $ns}}, sideEffects: None, admissionReviewVersions: [v1], failurePolicy: Ignore}]`, `{metadata: {labels: {istio.io/rev: canary}}}`, nil},
	{"validatingadmissionpolicybindings", `spec: {policyName: none, validationActions: [Deny]}`, `{spec: {validationActions: [Audit]}}`, nil},
	{"leases", `spec: {holderIdentity: me, leaseDurationSeconds: 15}`, `{spec: {leaseTransitions: 1}}`, nil},
	{"endpointslices", `addressType: IPv4, endpoints: [{addresses: [10.0.0.7]}], ports: [{port: 80}]`, `{endpoints: []}`, nil},
	{"ingresses", `spec: {rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}`, `{spec: {ingressClassName: none}}`, nil},
	{"ingressclasses", `spec: {controller: example.test/a}`, `{metadata: {annotations: {merged: x}}}`, nil},
	{"networkpolicies", `spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, `{spec: {policyTypes: [Ingress, Egress]}}`, nil},
	{"priorityclasses", `value: 1000`, `{description: about}`, nil},
	{"storageclasses", `provisioner: example.test/a`, `{allowVolumeExpansion: true}`, nil},
	{"customresourcedefinitions", `spec: {group: $ns.test, scope: Namespaced, names: {plural: things, singular: thing, kind: Thing, listKind: ThingList}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}`, `{spec: {names: {shortNames: [th]}}}`, []string{"status.conditions[Established].status=True", "status.acceptedNames.shortNames=.spec.names.shortNames"}},
	{"widgets", `spec: {size: 2}`, `{spec: {color: red}}`, nil},
	{"gadgets", `spec: {parts: [{name: x}]}`, `{spec: {mode: fast}}`, nil},
	{"fleets", `spec: {members: [a, b]}`, `{spec: {members: [c]}}`, nil},
}
