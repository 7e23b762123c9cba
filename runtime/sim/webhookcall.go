package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// HandleWebhook answers for the webhooks at a host, "NAME.NAMESPACE.svc:PORT"
// of a Service or "HOST:PORT" of a URL (the port is 443 when the configuration
// names none), in this process: h gets AdmissionReviews as over HTTPS. It may
// read from the cluster while it answers, but not write. nil takes a handler
// away.
func (c *Cluster) HandleWebhook(host string, h http.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handlers == nil {
		c.handlers = map[string]http.Handler{}
	}
	c.handlers[host] = h
	if h == nil {
		delete(c.handlers, host)
	}
	clear(c.callers)
}

// LoopbackWebhooks is an Options.WebhookAddress that calls the webhooks whose
// URL is on this machine, and no others.
func LoopbackWebhooks(host string) (addr string, ok bool) {
	name, _, err := net.SplitHostPort(host)
	ip := net.ParseIP(name)
	return host, err == nil && (name == "localhost" || ip != nil && ip.IsLoopback())
}

// caller is the client of one webhook's backend, and the path to call.
type caller struct {
	client *rest.RESTClient
	path   string
}

// webhookBackend is who answers for a webhook, nil when nobody does: then it is taken
// to answer when its Service has a ready pod.
func (c *Cluster) webhookBackend(h *webhook) (*caller, error) {
	if len(c.handlers) == 0 && c.opts.WebhookAddress == nil {
		return nil, nil
	}
	host, path, err := h.endpoint()
	if err != nil {
		return nil, err
	}
	key := host + "\x00" + path + "\x00" + string(h.def.ClientConfig.CABundle)
	if known, ok := c.callers[key]; ok {
		return known, nil
	}
	cfg := &rest.Config{
		Host: "https://" + host, APIPath: path, UserAgent: "kube-apiserver-admission", QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", NegotiatedSerializer: reviews()},
	}
	if handler := c.handlers[host]; handler != nil {
		cfg.Transport = handlerTransport{handler}
	} else {
		if c.opts.WebhookAddress == nil {
			return nil, nil
		}
		addr, ok := c.opts.WebhookAddress(host)
		if !ok {
			return nil, nil
		}
		name, _, err := net.SplitHostPort(host)
		if err != nil {
			return nil, err
		}
		cfg.TLSClientConfig = rest.TLSClientConfig{CAData: h.def.ClientConfig.CABundle, ServerName: name}
		cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	client, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, err
	}
	if c.callers == nil {
		c.callers = map[string]*caller{}
	}
	out := &caller{client, path}
	c.callers[key] = out
	return out, nil
}

// reviews decodes AdmissionReviews as the API server does.
var reviews = sync.OnceValue(func() runtime.NegotiatedSerializer {
	s := runtime.NewScheme()
	if err := admissionv1.AddToScheme(s); err != nil {
		panic("sim: AdmissionReview cannot be registered: " + err.Error())
	}
	return serializer.NegotiatedSerializerWrapper(runtime.SerializerInfo{Serializer: serializer.NewCodecFactory(s).LegacyCodec(admissionv1.SchemeGroupVersion)})
})

// handlerTransport answers requests by a handler of this process.
type handlerTransport struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &buffered{header: http.Header{}}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	t.h.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.response(r), nil
}

// callWebhook asks a webhook, without the lock of readers meanwhile. The error
// is why there is no answer.
func (c *Cluster) callWebhook(b *caller, h *webhook, v *review) (*admissionv1.AdmissionResponse, error) {
	in, err := v.admissionReview(types.UID(c.uid()))
	if err != nil {
		return nil, err
	}
	out := &admissionv1.AdmissionReview{}
	c.outside(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(h.timeout())*time.Second)
		defer cancel()
		req := b.client.Post().Body(in).Timeout(time.Duration(h.timeout()) * time.Second)
		err = req.Do(ctx).Into(out)
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("failed to call webhook: %w", err)
	case out.Response == nil:
		return nil, invalidAnswer("webhook response was absent")
	case out.Response.UID != in.Request.UID:
		return nil, invalidAnswer("expected response.uid=%q, got %q", in.Request.UID, out.Response.UID)
	case out.GroupVersionKind() != in.GroupVersionKind():
		return nil, invalidAnswer("expected webhook response of %v, got %v", in.GroupVersionKind(), out.GroupVersionKind())
	case len(out.Response.Patch) > 0 && (out.Response.PatchType == nil || *out.Response.PatchType != admissionv1.PatchTypeJSONPatch):
		return nil, invalidAnswer("webhook returned response.patch but not response.patchType")
	}
	for _, w := range out.Response.Warnings {
		v.o.warn(w)
	}
	return out.Response, nil
}

func invalidAnswer(format string, args ...any) error {
	return fmt.Errorf("received invalid webhook response: "+format, args...)
}

// failed is what a webhook that cannot be called makes of the request.
func (h *webhook) failed(err error) error {
	if h.failIgnore {
		return nil
	}
	return apierrors.NewInternalError(fmt.Errorf("failed calling webhook %q: %w", h.name, err))
}

// admissionReview is what a webhook is sent.
func (v *review) admissionReview(uid types.UID) (*admissionv1.AdmissionReview, error) {
	r, err := v.request()
	if err != nil {
		return nil, err
	}
	a := r.Attributes
	u := userInfo(v.user())
	kind, gvr := metav1.GroupVersionKind(a.VersionedKind), metav1.GroupVersionResource(a.GetResource())
	req := &admissionv1.AdmissionRequest{
		UID: uid, Kind: kind, Resource: gvr, SubResource: a.GetSubresource(), RequestKind: &kind, RequestResource: &gvr, RequestSubResource: a.GetSubresource(),
		Name: a.GetName(), Namespace: a.GetNamespace(), Operation: admissionv1.Operation(v.op), UserInfo: u, DryRun: new(v.o.dryRun),
		Options: runtime.RawExtension{Object: v.options()},
	}
	for _, x := range []struct {
		from *unstructured.Unstructured
		to   *runtime.RawExtension
	}{{v.obj, &req.Object}, {v.old, &req.OldObject}} {
		if x.from == nil {
			continue
		}
		if x.to.Raw, err = json.Marshal(x.from.Object); err != nil {
			return nil, err
		}
	}
	if req.Options.Raw, err = json.Marshal(req.Options.Object); err != nil {
		return nil, err
	}
	out := &admissionv1.AdmissionReview{Request: req}
	out.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
	return out, nil
}

// patchedBy applies a webhook's JSON patch.
func patchedBy(obj *unstructured.Unstructured, patch []byte) (*unstructured.Unstructured, error) {
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, err
	}
	before, err := json.Marshal(obj.Object)
	if err != nil {
		return nil, err
	}
	after, err := p.Apply(before)
	if err != nil {
		return nil, err
	}
	return decodeJSON(after)
}

// rejected is the answer of the API server when a webhook refuses
// (admission/plugin/webhook/errors).
func rejected(name string, result *metav1.Status) error {
	st := metav1.Status{}
	if result != nil {
		st = *result
	}
	if st.Code < http.StatusBadRequest {
		st.Code = http.StatusBadRequest
	}
	st.Status = metav1.StatusFailure
	by := fmt.Sprintf("admission webhook %q denied the request", name)
	switch {
	case st.Message != "":
		st.Message = by + ": " + st.Message
	case st.Reason != "":
		st.Message = by + ": " + string(st.Reason)
	default:
		st.Message = by + " without explanation"
	}
	return &apierrors.StatusError{ErrStatus: st}
}
