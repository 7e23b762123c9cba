package requests

// spec wraps a patch of a pod specification.
func spec(patch string) string { return `{template: {spec: {` + patch + `}}}` }

// strategicOn is a case of strategic merge patches to the PodTemplate.
func strategicOn(name string, patches ...string) scenario {
	s := scenario{name: "strategic merge/" + name, steps: []step{create("podtemplates", template)}}
	for _, p := range patches {
		s.steps = append(s.steps, strategic("podtemplates/a", p))
	}
	return s
}

var strategicCases = []scenario{
	strategicOn("containers by name", spec(`containers: [{name: app, image: "app:2"}]`), spec(`containers: [{name: new, image: "new:1"}]`), spec(`containers: [{name: nothing}]`)),
	strategicOn("env by name", spec(`containers: [{name: app, env: [{name: A, value: "9"}, {name: C, value: "3"}]}]`), spec(`containers: [{name: app, env: [{name: A, value: null}]}]`)),
	strategicOn("ports by container port", spec(`containers: [{name: app, ports: [{containerPort: 80, name: web}]}]`), spec(`containers: [{name: app, ports: [{containerPort: 81}]}]`)),
	strategicOn("tolerations are replaced", spec(`tolerations: [{key: t2, operator: Exists}]`), spec(`tolerations: null`)),
	strategicOn("args are replaced", spec(`containers: [{name: app, args: [z]}]`)),
	strategicOn("$patch delete in a list", spec(`containers: [{name: side, $patch: delete}]`), spec(`containers: [{name: absent, $patch: delete}]`), spec(`containers: [{$patch: delete}]`)),
	strategicOn("$patch replace of a list", spec(`containers: [{name: only, image: "only:1"}, {$patch: replace}]`)),
	strategicOn("$patch on maps", spec(`securityContext: {runAsUser: 7}`), spec(`securityContext: {$patch: replace, fsGroup: 8}`), spec(`securityContext: {$patch: delete}`), spec(`securityContext: {$patch: sideways}`)),
	strategicOn("$retainKeys", spec(`volumes: [{name: v1, $retainKeys: [name, hostPath], hostPath: {path: /x}}]`), spec(`volumes: [{name: v1, $retainKeys: [name], configMap: {name: c}}]`)),
	strategicOn("$setElementOrder", spec(`$setElementOrder/containers: [{name: side}, {name: app}]`), spec(`$setElementOrder/containers: [{name: new}, {name: app}, {name: side}], containers: [{name: new, image: "new:1"}]`), spec(`$setElementOrder/containers: [{name: app}], containers: [{name: other, image: x}]`)),
	{name: "strategic merge/$deleteFromPrimitiveList", steps: []step{
		create("configmaps", `{metadata: {name: a, finalizers: [x.test/a, x.test/b, x.test/c]}}`),
		strategic("configmaps/a", `{metadata: {$deleteFromPrimitiveList/finalizers: [x.test/b]}}`), strategic("configmaps/a", `{metadata: {finalizers: [x.test/d, x.test/a]}}`),
		strategic("configmaps/a", `{metadata: {$setElementOrder/finalizers: [x.test/d, x.test/c, x.test/a], finalizers: [x.test/d]}}`), strategic("configmaps/a", `{metadata: {finalizers: null}}`),
	}},
	strategicOn("image pull secrets and volumes", spec(`imagePullSecrets: [{name: s2}], volumes: [{name: v2, emptyDir: {}}]`), spec(`volumes: [{name: v1, $patch: delete}]`)),
	strategicOn("labels and annotations", `{metadata: {labels: {a: b}, annotations: {c: d}}}`, `{metadata: {labels: {a: null}, annotations: null}}`, `{template: {metadata: {annotations: {"kubectl.kubernetes.io/restartedAt": now}}}}`),
	strategicOn("wrong types", spec(`containers: {name: app}`), spec(`containers: [{image: nameless}]`), `{template: []}`, `[]`),
	{name: "strategic merge/deployment", steps: []step{
		create("deployments", idle), idleSettled, strategic("deployments/a", `{spec: {template: {spec: {containers: [{name: app, image: "app:2"}]}}}}`), idleSettled,
		strategic("deployments/a", `{spec: {strategy: {$retainKeys: [type], type: Recreate}}}`), idleSettled, strategic("deployments/a", `{spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 2}}}}`),
		strategic("deployments/a", `{spec: {selector: {matchLabels: {more: x}}}}`),
	}},
	{name: "strategic merge/service ports", steps: []step{
		create("services", `{metadata: {name: a}, spec: {ports: [{name: http, port: 80}, {name: dns, port: 53}]}}`),
		strategic("services/a", `{spec: {ports: [{port: 80, targetPort: 8080}]}}`), strategic("services/a", `{spec: {ports: [{port: 53, $patch: delete}]}}`), strategic("services/a", `{spec: {ports: [{port: 82}]}}`),
	}},
	{name: "strategic merge/service account secrets", steps: []step{create("serviceaccounts", `{metadata: {name: a}, imagePullSecrets: [{name: x}]}`), strategic("serviceaccounts/a", `{imagePullSecrets: [{name: z}], secrets: [{name: z}]}`), strategic("serviceaccounts/a", `{imagePullSecrets: [{name: x, $patch: delete}]}`)}},
	{name: "strategic merge/webhooks by name", steps: []step{
		create("mutatingwebhookconfigurations", `{metadata: {name: $ns}, webhooks: [`+hook("a")+`, `+hook("b")+`]}`),
		strategic("mutatingwebhookconfigurations/$ns", `{webhooks: [{name: b.conform.test, failurePolicy: Ignore}]}`), strategic("mutatingwebhookconfigurations/$ns", `{webhooks: [{name: a.conform.test, $patch: delete}]}`),
		strategic("mutatingwebhookconfigurations/$ns", `{webhooks: [{name: b.conform.test, clientConfig: {caBundle: Y2E=}}]}`), del("mutatingwebhookconfigurations/$ns"),
	}},
	{name: "strategic merge/not for custom kinds", steps: []step{create("widgets", `{metadata: {name: a}, spec: {}}`), strategic("widgets/a", `{spec: {size: 2}}`), strategic("widgets/none", `{}`)}},
	{name: "strategic merge/custom resource definitions", steps: []step{strategic("customresourcedefinitions/widgets.conform.rutter.dev?dryRun=All", `{spec: {names: {categories: [more]}}}`).with("code", "reason", "message", "spec.names.categories")}},
}

// hook is a webhook that is never called.
func hook(name string) string {
	return `{name: ` + name + `.conform.test, clientConfig: {url: "https://127.0.0.1:1/x"}, sideEffects: None, admissionReviewVersions: [v1], rules: [{apiGroups: [none.test], apiVersions: ["*"], operations: [CREATE], resources: [things]}]}`
}

// jsonOn is a case of JSON patches to the PodTemplate.
func jsonOn(name string, patches ...string) scenario {
	s := scenario{name: "patches/json " + name, steps: []step{create("podtemplates", template)}}
	for _, p := range patches {
		s.steps = append(s.steps, jsonPatch("podtemplates/a", p))
	}
	return s
}

var patchCases = []scenario{
	jsonOn("add", `[{op: add, path: /metadata/labels, value: {x: z}}]`, `[{op: add, path: /template/spec/containers/-, value: {name: last, image: x}}]`, `[{op: add, path: /template/spec/containers/0, value: {name: first, image: x}}]`, `[{op: add, path: /metadata/annotations/x, value: z}]`),
	jsonOn("remove and replace", `[{op: remove, path: /template/spec/containers/1}]`, `[{op: replace, path: /template/spec/containers/0/image, value: "app:9"}]`, `[{op: remove, path: /metadata/labels/none}]`, `[{op: replace, path: /metadata/nothing, value: x}]`),
	jsonOn("test", `[{op: test, path: /template/spec/containers/0/image, value: "app:1"}, {op: replace, path: /template/spec/containers/0/image, value: "app:2"}]`, `[{op: test, path: /template/spec/containers/0/image, value: "app:1"}]`, `[{op: test, path: /metadata/resourceVersion, value: "0"}]`),
	jsonOn("move and copy", `[{op: copy, from: /template/spec/containers/0/args, path: /template/spec/containers/1/args}]`, `[{op: move, from: /template/spec/containers/0/args, path: /template/spec/containers/0/command}]`),
	jsonOn("malformed", `{op: add}`, `[{op: fly, path: /x}]`, `[{op: add}]`, `"text"`),
	jsonOn("escapes", `[{op: add, path: /metadata/annotations, value: {}}, {op: add, path: /metadata/annotations/a.test~1b, value: c}]`),
	jsonOn("invalid result", `[{op: remove, path: /template/spec/containers}]`, `[{op: replace, path: /metadata/name, value: b}]`, `[{op: add, path: /metadata/labels, value: {"-bad": x}}]`),
	{name: "patches/merge", steps: []step{
		create("podtemplates", template), merge("podtemplates/a", spec(`containers: [{name: app, image: "app:2"}]`)), merge("podtemplates/a", spec(`tolerations: null, nodeName: n`)),
		merge("podtemplates/a", `{metadata: {labels: {a: b, c: null}}}`), merge("podtemplates/a", `[]`), merge("podtemplates/a", `"text"`), merge("podtemplates/none", `{}`),
	}},
	{name: "patches/merge of custom objects", steps: []step{
		create("widgets", `{metadata: {name: a}, spec: {parts: [{name: x}], any: {deep: {er: 1}}}}`), merge("widgets/a", `{spec: {parts: [{name: z}], any: {deep: {er: null, more: 2}}}}`),
		merge("widgets/a", `{spec: {size: null}}`), merge("widgets/a", `{spec: {unknown: x}}`), merge("widgets/a", `{spec: {size: 77}}`), merge("widgets/a", `{status: {phase: x}}`),
	}},
	{name: "patches/json of custom objects", steps: []step{create("widgets", `{metadata: {name: a}, spec: {parts: [{name: x}]}}`), jsonPatch("widgets/a", `[{op: add, path: /spec/parts/-, value: {name: z}}]`), jsonPatch("widgets/a", `[{op: add, path: /spec/parts/-, value: {name: z}}]`), jsonPatch("widgets/a", `[{op: remove, path: /spec/none}]`)}},
	{name: "patches/read-only fields", steps: []step{
		create("configmaps", plain), merge("configmaps/a", `{metadata: {creationTimestamp: null}}`), merge("configmaps/a", `{metadata: {generation: 9}}`), merge("configmaps/a", `{metadata: {deletionTimestamp: "2026-01-01T00:00:00Z"}}`),
		merge("configmaps/a", `{metadata: {generateName: x}}`), merge("configmaps/a", `{kind: Secret}`), merge("configmaps/a", `{apiVersion: v2}`), get("configmaps/a"),
	}},
	{name: "patches/unknown and doubled fields", steps: []step{
		create("configmaps", plain), merge("configmaps/a?fieldValidation=Strict", `{nodata: {}}`), merge("configmaps/a?fieldValidation=Warn", `{nodata: {}}`), merge("configmaps/a?fieldValidation=Ignore", `{nodata: {}}`),
		strategic("configmaps/a?fieldValidation=Strict", `{nodata: {}}`), jsonPatch("configmaps/a?fieldValidation=Strict", `[{op: add, path: /nodata, value: {}}]`),
		merge("configmaps/a?fieldValidation=Strict", `{"data": {"k": "x"}, "data": {"k": "y"}}`).verbatim("application/merge-patch+json"), merge("configmaps/a?fieldValidation=Sometimes", `{}`),
	}},
}

var contentCases = []scenario{
	{name: "content/yaml body", steps: []step{create("configmaps", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n").verbatim("application/yaml"), update("configmaps/a", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n").verbatim("application/yaml"), create("widgets", "apiVersion: conform.rutter.dev/v1\nkind: Widget\nmetadata: {name: a}\nspec: {}\n").verbatim("application/yaml")}},
	{name: "content/unknown types", steps: []step{create("configmaps", plain).verbatim("text/plain"), create("configmaps", plain).verbatim("application/xml"), verb("PATCH", "configmaps/a", `{}`, map[string]string{"Content-Type": "application/json"}), create("configmaps", plain), patchAs("text/plain", "configmaps/a", `{}`), verb("PATCH", "widgets/a", `{}`, map[string]string{"Content-Type": "application/yaml"})}},
	{name: "content/malformed", steps: []step{create("configmaps", `{"metadata": `).verbatim("application/json"), create("configmaps", `[]`).verbatim("application/json"), create("configmaps", ` `).verbatim("application/json"), create("configmaps", `{"kind":"ConfigMap","apiVersion":"v1","metadata":[]}`).verbatim("application/json"), create("widgets", `{"metadata": `).verbatim("application/json"), create("widgets", `{"apiVersion":"conform.rutter.dev/v1","kind":"Widget","metadata":"x"}`).verbatim("application/json")}},
	{name: "content/kind and version", steps: []step{
		create("configmaps", `{apiVersion: v1, kind: Secret, metadata: {name: a}}`), create("configmaps", `{apiVersion: v2, kind: ConfigMap, metadata: {name: a}}`), create("configmaps", `{"metadata":{"name":"a"}}`).verbatim("application/json"),
		create("widgets", `{"metadata":{"name":"a"}}`).verbatim("application/json"), create("widgets", `{apiVersion: conform.rutter.dev/v2, kind: Widget, metadata: {name: a}}`), create("widgets", `{apiVersion: conform.rutter.dev/v1, kind: Gadget, metadata: {name: a}}`),
	}},
	{name: "content/metadata only", steps: []step{
		create("configmaps", plain), get("configmaps/a").accepting("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"),
		get("configmaps?fieldSelector=metadata.name%3Da").accepting("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), merge("configmaps/a", `{metadata: {labels: {x: z}}}`).accepting("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
		get("configmaps/a").accepting("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v9"), get("widgets").accepting("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
	}},
	{name: "content/tables", steps: []step{
		create("widgets", `{metadata: {name: a}, spec: {size: 4}}`), get("widgets").accepting(tables).with("kind", "columnDefinitions", "rows[0].cells[0]", "rows[0].cells[1]"), get("widgets/a").accepting(tables+",application/json").with("kind", "rows[0].object.kind", "rows[0].object.metadata.name"),
		create("configmaps", plain), get("configmaps?fieldSelector=metadata.name%3Da").accepting(tables).with("kind", "columnDefinitions[0].name", "columnDefinitions[1].name", "rows[0].cells[1]"), get("configmaps?includeObject=None&fieldSelector=metadata.name%3Da").accepting(tables).with("kind", "rows[0].object"),
		create("secrets", `{metadata: {name: a}, type: example.test/x}`), get("secrets").accepting(tables).with("columnDefinitions", "rows[0].cells[0]", "rows[0].cells[1]", "rows[0].cells[2]"),
		create("services", `{metadata: {name: a}, spec: {clusterIP: None, ports: [{port: 80}]}}`), get("services").accepting(tables).with("columnDefinitions", "rows[0].cells[1]", "rows[0].cells[2]", "rows[0].cells[3]", "rows[0].cells[4]"),
	}},
	{name: "content/not acceptable", steps: []step{get("configmaps").accepting("text/html"), get("configmaps/none").accepting("application/xml, image/png")}},
	{name: "content/methods", steps: []step{verb("PUT", "configmaps", plain, nil), verb("POST", "configmaps/a", plain, nil), verb("PATCH", "configmaps", `{}`, map[string]string{"Content-Type": "application/merge-patch+json"}), verb("DELETE", "/api/v1/configmaps", "", nil), verb("POST", "/api/v1/configmaps", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`, nil), verb("OPTIONS", "configmaps", "", nil)}},
	{name: "content/unknown paths", steps: []step{
		get("/api/v1/namespaces/$ns/nothings"), get("/apis/none.test/v1/things"), get("/apis/apps/v9/namespaces/$ns/deployments"), get("/apis/apps/v1/deployments/a"), get("/api/v1/namespaces/$ns/nodes"), get("/apis/conform.rutter.dev/v1alpha1/gadgets"), get("configmaps/a/status"), get("widgets/a/nothing"), get("/api/v1/namespaces/$ns/configmaps/a/scale"),
	}},
	{name: "content/older version of a kind", steps: []step{
		create("/apis/conform.rutter.dev/v1beta1/namespaces/$ns/gadgets", `{apiVersion: conform.rutter.dev/v1beta1, kind: Gadget, metadata: {name: a}, spec: {mode: slow}}`), get("gadgets/a"), get("/apis/conform.rutter.dev/v1beta1/namespaces/$ns/gadgets/a"), get("/apis/conform.rutter.dev/v1beta1/namespaces/$ns/gadgets"),
	}},
	{name: "content/autoscalers in two versions", steps: []step{
		create("/apis/autoscaling/v1/namespaces/$ns/horizontalpodautoscalers?dryRun=All", `{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: a}, spec: {maxReplicas: 3, targetCPUUtilizationPercentage: 70, scaleTargetRef: {kind: Deployment, name: a, apiVersion: apps/v1}}}`),
		create("horizontalpodautoscalers?dryRun=All", `{metadata: {name: a}, spec: {maxReplicas: 3, scaleTargetRef: {kind: Deployment, name: a, apiVersion: apps/v1}}}`),
	}},
}

const tables = "application/json;as=Table;g=meta.k8s.io;v=v1"
