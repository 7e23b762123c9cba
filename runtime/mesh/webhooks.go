package mesh

import (
	"cmp"
	"strings"

	"rutter.dev/rutter/runtime/cluster"
)

// Webhook is one admission webhook of a configuration, projected to who answers
// it and what happens while nobody does.
type Webhook struct {
	Config cluster.Ref
	Name   string
	// Fails: while it has no endpoint, the API server refuses everything that it
	// covers. That is what a webhook that names no failure policy does (admissionregistration/v1).
	Fails bool
	// Service that answers it; empty where it names a URL.
	Service cluster.Ref
	// OfMesh: it injects, or validates Istio's configuration.
	OfMesh bool
}

// WebhooksOf lists the webhooks of a mutating or validating configuration.
func WebhooksOf(o *cluster.Object) []Webhook {
	if o == nil {
		return nil
	}
	hooks, _ := o.Object["webhooks"].([]any)
	out := make([]Webhook, 0, len(hooks))
	for _, h := range hooks {
		m, ok := h.(map[string]any)
		if !ok {
			continue
		}
		w := Webhook{Config: cluster.RefOf(o), Name: text(m, "name"), Fails: cmp.Or(text(m, "failurePolicy"), "Fail") == "Fail"}
		client, _ := m["clientConfig"].(map[string]any)
		if svc, ok := client["service"].(map[string]any); ok {
			w.Service = cluster.Ref{Version: "v1", Kind: "Service", Namespace: text(svc, "namespace"), Name: text(svc, "name")}
		}
		w.OfMesh = strings.HasSuffix(w.Name, ".istio.io") || ofIstio(o.GetLabels())
		out = append(out, w)
	}
	return out
}

func ofIstio(l map[string]string) bool {
	return l["app"] == "sidecar-injector" || l["app"] == "istiod" || l[LabelTag] != "" || l[LabelRev] != ""
}

// InjectorsOf lists the injecting webhooks of one configuration; none if it is
// no injector's.
func InjectorsOf(o *cluster.Object) ([]Injector, error) {
	if o == nil {
		return nil, nil
	}
	return injectors(o)
}
