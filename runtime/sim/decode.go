package sim

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"rutter.dev/rutter/runtime/plain"
	"rutter.dev/rutter/runtime/sim/kinds"
)

// decodeBody reads an object in JSON, YAML or (built-in kinds) protobuf. A
// built-in kind may be left out, as the path says it.
func decodeBody(r *http.Request, q *query, body []byte) (*unstructured.Unstructured, error) {
	mt := mediaType(r.Header.Get("Content-Type"))
	j := body
	switch mt {
	case "application/vnd.kubernetes.protobuf":
		obj, err := decodeProtobuf(body)
		if err != nil {
			return nil, err
		}
		return q.expected(obj, body)
	case "application/yaml":
		var err error
		if j, err = plain.Written.LaxJSON(body); err != nil {
			return nil, q.unrecognized(err, body)
		}
	case "application/json", "":
	default:
		return nil, unsupportedMedia("the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf")
	}
	obj, err := decodeJSON(j)
	if err != nil {
		return nil, q.unrecognized(fmt.Errorf("couldn't get version/kind; json parse error: %w", err), body)
	}
	return q.expected(obj, body)
}

func decodeProtobuf(body []byte) (*unstructured.Unstructured, error) {
	s := protobuf.NewSerializer(kinds.Scheme(), kinds.Scheme())
	typed, _, err := s.Decode(body, nil, nil)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return &unstructured.Unstructured{Object: m}, nil
}

// expected refuses an object that is not of the request's kind and version, in
// the words of the server's decoders.
func (q *query) expected(obj *unstructured.Unstructured, body []byte) (*unstructured.Unstructured, error) {
	want, got := q.res.gvk(q.version), obj.GroupVersionKind()
	custom := q.res.crd != nil
	cannot := func(format string, args ...any) error {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: ", got.Kind, got.Version, want.Kind) + fmt.Sprintf(format, args...))
	}
	switch {
	case got == want:
		return obj, nil
	case got.Kind == "" && custom:
		//lint:ignore ST1005 the server's own words
		return nil, q.unrecognized(fmt.Errorf("Object 'Kind' is missing in '%s'", body), body)
	case got.Kind != "" && got.Kind != want.Kind && !custom && kinds.Scheme().Recognizes(got):
		return nil, cannot("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, internalPackage(want.Group), want.Kind)
	case got.Kind != "" && got.Kind != want.Kind:
		return nil, cannot("no kind %q is registered for version %q", got.Kind, obj.GetAPIVersion())
	case custom, got.Version != "" && kinds.Scheme().Recognizes(got):
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", obj.GetAPIVersion(), want.GroupVersion()))
	case got.Version != "":
		return nil, cannot("no kind %q is registered for version %q in scheme \"pkg/runtime/scheme.go:111\"", got.Kind, obj.GetAPIVersion())
	}
	obj.SetGroupVersionKind(want)
	return obj, nil
}

// internalPackage is the Go package of a group's internal types.
func internalPackage(group string) string {
	if group == "" {
		return "core"
	}
	name, _, _ := strings.Cut(group, ".")
	return name
}

func (q *query) unrecognized(err error, body []byte) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", q.res.kind, err, summary(body)))
}

// summary shows the beginning of a body, in hexadecimal unless it is JSON.
func summary(body []byte) string {
	const most = 30
	text := func(b []byte) string {
		if body[0] == '{' {
			return string(b)
		}
		return hex.EncodeToString(b)
	}
	switch {
	case len(body) == 0:
		return "<empty>"
	case len(body) > most:
		return text(body[:most]) + " ..."
	}
	return text(body)
}

func unsupportedMedia(text string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType, Message: text,
	}}
}

// conditional are the built-in resources that are not updated without a
// resourceVersion; nor are custom ones.
var conditional = map[schema.GroupResource]bool{
	{Group: "coordination.k8s.io", Resource: "leases"}: true, grPDBs: true, grCRDs: true,
	grMutating: true, grValidating: true, grPolicies: true, grPolicyBindings: true,
}

// versionGiven refuses an update without a resourceVersion where the server
// wants one.
func (c *Cluster) versionGiven(q *query, obj *unstructured.Unstructured) error {
	if obj.GetResourceVersion() != "" || q.res.crd == nil && !conditional[q.res.gr()] || c.st.get(objectKey{q.res.gr(), q.namespace, q.name}) == nil {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: q.res.group, Kind: q.res.plural}, q.name, field.ErrorList{
		field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"),
	})
}
