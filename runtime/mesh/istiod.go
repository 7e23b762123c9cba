package mesh

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"rutter.dev/rutter/runtime/cluster"
)

// istiodManager is the field manager of a running istiod: the first part of
// its user agent (istio.io/istio, pkg/kube IstioUserAgent).
const istiodManager = "pilot-discovery"

// Yield takes from the webhooks of want, which live is of, the fields that a
// running istiod keeps itself: the certificate with which it is called
// (pkg/webhooks/webhookpatch.go), and the failure policy of validation, which
// it raises to Fail once it has seen that validation works
// (pkg/webhooks/validation/controller). A manifest only says what they are
// before istiod is there. To apply that again would be a conflict with istiod
// and, by force, would let invalid configuration in until istiod sets it anew.
func Yield(want, live *cluster.Object) error {
	if live == nil || (want.GetKind() != "ValidatingWebhookConfiguration" && want.GetKind() != "MutatingWebhookConfiguration") {
		return nil
	}
	theirs, err := cluster.Owned(live, func(m metav1.ManagedFieldsEntry) bool { return m.Manager == istiodManager })
	if err != nil {
		return err
	}
	theirs.Leaves().Iterate(func(p fieldpath.Path) {
		if len(p) < 3 {
			return
		}
		var in any = want.Object
		for _, pe := range p[:len(p)-1] {
			in, _ = cluster.Element(in, pe)
		}
		if m, ok := in.(map[string]any); ok && p[len(p)-1].FieldName != nil {
			switch field := *p[len(p)-1].FieldName; field {
			case "failurePolicy", "caBundle":
				delete(m, field)
			}
		}
	})
	return nil
}
