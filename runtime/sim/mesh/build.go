package mesh

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// SystemNamespace is where the control plane of a generated mesh lives.
const SystemNamespace = "istio-system"

// tagName is the revision tag of a mesh that has a named revision.
const tagName = "stable"

type object = map[string]any

// Build makes all objects of a mesh in an order in which they can be created:
// nodes and namespaces, the installed control plane (see Installed), then
// workloads, their Services and budgets, and mesh configuration of the kinds
// that the manifest has CRDs for. The manifest is that of spec.Istio and
// spec.Revision; it is not changed.
func Build(spec Spec, manifest []*unstructured.Unstructured) []*unstructured.Unstructured {
	b := &builder{
		spec: spec, rnd: rand.New(rand.NewPCG(uint64(spec.Seed), 0x72757474)), // #nosec G115 G404 -- reproducible on purpose
		serves: map[string]bool{},
	}
	installed := Installed(spec, manifest)
	for _, o := range installed {
		if o.GetKind() == "CustomResourceDefinition" {
			kind, _, _ := unstructured.NestedString(o.Object, "spec", "names", "kind")
			b.serves[kind] = true
		}
	}
	b.nodes()
	b.namespaces()
	b.out = append(b.out, installed...)
	if spec.Revision != "" {
		b.tag(installed)
	}
	b.certificates()
	b.workloads()
	b.barePods()
	b.meshConfig()
	return b.out
}

type builder struct {
	spec   Spec
	rnd    *rand.Rand
	serves map[string]bool // kinds with a CRD
	spaces []string
	plain  map[string]bool // namespaces without injection
	loads  []workload
	out    []*unstructured.Unstructured
}

func (b *builder) add(apiVersion, kind, namespace, name string, labels object, rest object) object {
	meta := object{"name": name}
	if namespace != "" {
		meta["namespace"] = namespace
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	o := object{"apiVersion": apiVersion, "kind": kind, "metadata": meta}
	for k, v := range rest {
		o[k] = v
	}
	b.out = append(b.out, &unstructured.Unstructured{Object: o})
	return o
}

func (b *builder) nodes() {
	pods := cmp.Or(b.spec.NodePods, 500)
	capacity := object{
		"cpu": fmt.Sprint((pods*16 + 499) / 500), "memory": fmt.Sprintf("%dGi", (pods*64+499)/500), "pods": fmt.Sprint(pods), "ephemeral-storage": "100Gi",
	}
	for i := range b.spec.Nodes {
		name := fmt.Sprintf("node-%d", i+1)
		labels := object{
			"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
			"topology.kubernetes.io/zone": "zone-" + string(rune('a'+i%3)),
		}
		b.add("v1", "Node", "", name, labels, object{
			"spec": object{"podCIDR": fmt.Sprintf("10.%d.%d.0/24", 64+i/256%128, i%256)},
			"status": object{
				"capacity": capacity, "allocatable": capacity,
				"addresses": []any{
					object{"type": "InternalIP", "address": fmt.Sprintf("172.18.%d.%d", i/250, 2+i%250)},
					object{"type": "Hostname", "address": name},
				},
				"conditions": []any{object{
					"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
				}},
				"nodeInfo": object{"architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "v1.34.0", "containerRuntimeVersion": "containerd://2.1.0"},
			},
		})
	}
}

var namespaceWords = []string{
	"shop", "payments", "orders", "search", "catalog", "accounts", "shipping", "pricing",
	"reviews", "media", "billing", "legacy", "fraud", "loyalty", "support", "analytics",
}

// namespaces makes the namespaces: most with istio-injection, every fourth by
// revision label (or tag, where there is one), the last of each dozen plain,
// and the last of all in ambient mode.
func (b *builder) namespaces() {
	b.add("v1", "Namespace", "", SystemNamespace, object{"kubernetes.io/metadata.name": SystemNamespace}, nil)
	b.plain = map[string]bool{}
	for i := range b.spec.Namespaces {
		name := namespaceWords[i%len(namespaceWords)]
		if n := i / len(namespaceWords); n > 0 {
			name += "-" + strconv.Itoa(n+1)
		}
		b.spaces = append(b.spaces, name)
		labels := object{"kubernetes.io/metadata.name": name}
		if i >= b.spec.Namespaces-b.spec.Ambient {
			labels[labelDataplane] = "ambient"
			b.plain[name] = true // none of them has sidecars
		} else if i%12 == 11 || (b.spec.Namespaces >= 3 && b.spec.Namespaces < 12 && i == b.spec.Namespaces-1) {
			b.plain[name] = true
		} else {
			b.label(labels, i)
		}
		b.add("v1", "Namespace", "", name, labels, nil)
	}
}

func (b *builder) label(labels object, i int) {
	switch {
	case b.spec.Revision == "" && i%4 == 3:
		labels["istio.io/rev"] = "default"
	case b.spec.Revision == "":
		labels["istio-injection"] = "enabled"
	case i%4 == 3:
		labels["istio.io/rev"] = tagName
	default:
		labels["istio.io/rev"] = b.spec.Revision
	}
}

// certificates makes what istiod makes when it starts: its self-signed CA and
// the root certificate in every namespace. They are text, not certificates.
func (b *builder) certificates() {
	root := "simulated root certificate of the mesh, seed " + strconv.FormatInt(b.spec.Seed, 10) + "\n"
	b.add("v1", "Secret", SystemNamespace, "istio-ca-secret", nil, object{
		"type": "istio.io/ca-root",
		"data": object{"ca-cert.pem": base64Text(root), "ca-key.pem": base64Text("simulated CA key, seed " + strconv.FormatInt(b.spec.Seed, 10) + "\n")},
	})
	for _, ns := range append([]string{SystemNamespace}, b.spaces...) {
		b.add("v1", "ConfigMap", ns, "istio-ca-root-cert", object{"istio.io/config": "true"}, object{"data": object{"root-cert.pem": root}})
	}
}

// tag makes the webhook of the revision tag, as istioctl tag set would: the
// revision's own webhooks for namespaces and objects labelled with the tag.
func (b *builder) tag(installed []*unstructured.Unstructured) {
	i := slices.IndexFunc(installed, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == "MutatingWebhookConfiguration" && o.GetLabels()["istio.io/rev"] == b.spec.Revision
	})
	if i < 0 {
		return
	}
	c := installed[i].DeepCopy()
	c.SetName("istio-revision-tag-" + tagName)
	labels := c.GetLabels()
	labels["istio.io/tag"] = tagName
	c.SetLabels(labels)
	hooks, _, _ := unstructured.NestedSlice(c.Object, "webhooks")
	var kept []any
	for _, h := range hooks {
		name, _, _ := unstructured.NestedString(h.(object), "name")
		if strings.HasPrefix(name, "rev.") {
			kept = append(kept, replaceStrings(h, func(s string) string {
				if s == b.spec.Revision {
					return tagName
				}
				return s
			}))
		}
	}
	c.Object["webhooks"] = kept
	b.out = append(b.out, c)
}
