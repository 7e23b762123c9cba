package sim

import (
	"mime"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const representations = "application/json, application/yaml, application/vnd.kubernetes.protobuf"

// negotiate reads the Accept header: the form in which objects are wanted, and
// whether in YAML. Clients that take protobuf are answered in JSON, which they
// all read. What the server has no representation for is 406.
func negotiate(accept string) (f format, asYAML bool, err error) {
	if accept == "" {
		return formatObject, false, nil
	}
	text := "406: Not Acceptable\n\nAvailable representations: " + representations
	for part := range strings.SplitSeq(accept, ",") {
		typ, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		switch typ {
		case "application/json", "application/*", "*/*", "application/yaml", "application/vnd.kubernetes.protobuf":
		default:
			continue
		}
		asYAML := typ == "application/yaml"
		switch as := params["as"]; {
		case as == "Table" && (params["v"] == "v1" || params["v"] == "v1beta1"):
			return formatTable, asYAML, nil
		case as == "PartialObjectMetadata" || as == "PartialObjectMetadataList":
			return formatPartial, asYAML, nil
		case as == "":
			return formatObject, asYAML, nil
		}
		text = "only the following media types are accepted: " + representations
	}
	return formatObject, false, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: text,
	}}
}
