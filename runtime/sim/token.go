package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

// issuer names the cluster in its ServiceAccounts' tokens, and is the audience
// of those for the API server itself.
const issuer = "https://kubernetes.default.svc.cluster.local"

// privateClaims are what a ServiceAccount's token says beside the registered
// claims.
type privateClaims struct {
	Kubernetes struct {
		Namespace string    `json:"namespace,omitempty"`
		Account   claimRef  `json:"serviceaccount"`
		Pod       *claimRef `json:"pod,omitempty"`
		Secret    *claimRef `json:"secret,omitempty"`
		Node      *claimRef `json:"node,omitempty"`
	} `json:"kubernetes.io"`
}

type claimRef struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

// signingKey follows from the seed, so that tokens stay good when a cluster is
// reopened or cloned. It protects nothing but a simulation.
func (c *Cluster) signingKey() ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "service account key %d", c.opts.Seed))
	return ed25519.NewKeyFromSeed(seed[:])
}

// token answers a TokenRequest with a signed token that expires on the virtual
// clock (registry/core/serviceaccount, TokenREST).
func (c *Cluster) token(r *http.Request, q *query, body []byte) (reply, error) {
	in, err := decodeTokenRequest(r, q, body)
	if err != nil {
		return reply{}, err
	}
	e := c.st.get(objectKey{grServiceAccounts, q.namespace, q.name})
	if e == nil {
		return reply{}, apierrors.NewNotFound(grServiceAccounts, q.name)
	}
	if in.UID != "" && in.UID != e.obj.GetUID() {
		return reply{}, apierrors.NewConflict(schema.GroupResource{Group: authenticationv1.GroupName, Resource: "TokenRequest"}, q.name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", in.UID, e.obj.GetUID()))
	}
	if len(in.Spec.Audiences) == 0 {
		in.Spec.Audiences = []string{issuer}
	}
	if in.Spec.ExpirationSeconds == nil {
		in.Spec.ExpirationSeconds = new(int64(3600))
	}
	if err := validTokenRequest(in); err != nil {
		return reply{}, err
	}
	in.Name, in.Namespace, in.UID = q.name, q.namespace, e.obj.GetUID()
	in.CreationTimestamp.Time = c.now
	expiry := c.now.Add(time.Duration(*in.Spec.ExpirationSeconds) * time.Second)
	private, err := c.boundClaims(in)
	if err != nil {
		return reply{}, err
	}
	signed, err := c.sign(jwt.Claims{
		Issuer: issuer, Subject: serviceaccount.MakeUsername(q.namespace, q.name), Audience: in.Spec.Audiences, ID: c.uid(),
		IssuedAt: jwt.NewNumericDate(c.now), NotBefore: jwt.NewNumericDate(c.now), Expiry: jwt.NewNumericDate(expiry),
	}, private)
	if err != nil {
		return reply{}, apierrors.NewInternalError(err)
	}
	in.Status = authenticationv1.TokenRequestStatus{Token: signed}
	in.Status.ExpirationTimestamp.Time = expiry
	return jsonReply(http.StatusCreated, in)
}

func decodeTokenRequest(r *http.Request, q *query, body []byte) (*authenticationv1.TokenRequest, error) {
	kinded := *q
	kinded.res = &resource{group: authenticationv1.GroupName, kind: "TokenRequest", plural: "tokenrequests"}
	kinded.version = "v1"
	obj, err := decodeBody(r, &kinded, body)
	if err != nil {
		return nil, err
	}
	var in authenticationv1.TokenRequest
	if err := fromUnstructured(obj, &in); err != nil {
		return nil, err
	}
	for _, f := range [][3]string{{"name", in.Name, q.name}, {"namespace", in.Namespace, q.namespace}} {
		if f[1] != "" && f[1] != f[2] {
			return nil, apierrors.NewInvalid(kinded.res.gk(), q.name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", f[0]), f[1], fmt.Sprintf("must match the service account %s if specified", f[0])),
			})
		}
	}
	return &in, nil
}

func validTokenRequest(in *authenticationv1.TokenRequest) error {
	path := field.NewPath("spec", "expirationSeconds")
	var errs field.ErrorList
	switch n := *in.Spec.ExpirationSeconds; {
	case n < 600:
		errs = append(errs, field.Invalid(path, n, "may not specify a duration less than 10 minutes"))
	case n > 1<<32:
		errs = append(errs, field.Invalid(path, n, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
}

// boundClaims are the private claims of the token that is asked for.
func (c *Cluster) boundClaims(in *authenticationv1.TokenRequest) (privateClaims, error) {
	var out privateClaims
	k := &out.Kubernetes
	k.Namespace, k.Account = in.Namespace, claimRef{in.Name, string(in.UID)}
	ref := in.Spec.BoundObjectRef
	if ref == nil {
		return out, nil
	}
	key := objectKey{schema.GroupResource{}, in.Namespace, ref.Name}
	switch {
	case ref.APIVersion == "v1" && ref.Kind == "Pod":
		key.gr = grPods
	case ref.APIVersion == "v1" && ref.Kind == "Secret":
		key.gr = grSecrets
	case ref.APIVersion == "v1" && ref.Kind == "Node":
		key.gr, key.namespace = grNodes, ""
	default:
		return out, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)))
	}
	e := c.st.get(key)
	if e == nil {
		return out, apierrors.NewNotFound(key.gr, ref.Name)
	}
	bound := &claimRef{ref.Name, string(e.obj.GetUID())}
	if ref.UID != "" && string(ref.UID) != bound.UID {
		return out, apierrors.NewConflict(key.gr, ref.Name, fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	switch key.gr {
	case grSecrets:
		k.Secret = bound
	case grNodes:
		k.Node = bound
	default:
		if sa, _, _ := unstructured.NestedString(e.obj.Object, "spec", "serviceAccountName"); sa != in.Name {
			return out, apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", in.Name))
		}
		k.Pod = bound
		if node, _, _ := unstructured.NestedString(e.obj.Object, "spec", "nodeName"); node != "" {
			k.Node = &claimRef{Name: node}
			if n := c.st.get(objectKey{grNodes, "", node}); n != nil {
				k.Node.UID = string(n.obj.GetUID())
			}
		}
	}
	return out, nil
}

func (c *Cluster) sign(public jwt.Claims, private privateClaims) (string, error) {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: c.signingKey()}, nil)
	if err != nil {
		return "", fmt.Errorf("signer of tokens: %w", err)
	}
	return jwt.Signed(s).Claims(public).Claims(private).Serialize()
}

// serviceAccountUser is who a ServiceAccount's token stands for, nil when the
// cluster did not issue it. A token that has expired on the virtual clock, or
// whose account or bound object is gone, is an error.
func (c *Cluster) serviceAccountUser(token string, audiences []string) (*User, []string, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, nil, nil //nolint:nilerr // not a token of a ServiceAccount: nobody's
	}
	var public jwt.Claims
	var private privateClaims
	if err := parsed.Claims(c.signingKey().Public(), &public, &private); err != nil || public.Issuer != issuer {
		return nil, nil, nil //nolint:nilerr // somebody else's
	}
	var good []string
	for _, a := range audiences {
		if slices.Contains(public.Audience, a) {
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		return nil, nil, fmt.Errorf("[invalid bearer token, token audiences %q is invalid for the target audiences %q]", []string(public.Audience), audiences)
	}
	if err := c.claimsHold(public, private); err != nil {
		return nil, nil, fmt.Errorf("[invalid bearer token, %w]", err)
	}
	k := private.Kubernetes
	info := serviceaccount.ServiceAccountInfo{Namespace: k.Namespace, Name: k.Account.Name, UID: k.Account.UID, CredentialID: "JTI=" + public.ID}
	if k.Pod != nil {
		info.PodName, info.PodUID = k.Pod.Name, k.Pod.UID
	}
	if k.Node != nil {
		info.NodeName, info.NodeUID = k.Node.Name, k.Node.UID
	}
	u, _ := info.UserInfo().(*User)
	return authenticated(*u), good, nil
}

func (c *Cluster) claimsHold(public jwt.Claims, private privateClaims) error {
	err := public.Validate(jwt.Expected{Time: c.now})
	switch {
	case errors.Is(err, jwt.ErrExpired):
		return errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet):
		return errors.New("service account token is not valid yet")
	case err != nil:
		return fmt.Errorf("service account token claims could not be validated: %w", err)
	}
	k := private.Kubernetes
	e := c.st.get(objectKey{grServiceAccounts, k.Namespace, k.Account.Name})
	if e == nil {
		return apierrors.NewNotFound(grServiceAccounts, k.Account.Name)
	}
	if uid := string(e.obj.GetUID()); uid != k.Account.UID {
		return fmt.Errorf("service account UID (%s) does not match claim (%s)", uid, k.Account.UID)
	}
	for _, b := range []struct {
		gr  schema.GroupResource
		ns  string
		ref *claimRef
	}{{grSecrets, k.Namespace, k.Secret}, {grPods, k.Namespace, k.Pod}} {
		if b.ref == nil {
			continue
		}
		if e := c.st.get(objectKey{b.gr, b.ns, b.ref.Name}); e == nil || string(e.obj.GetUID()) != b.ref.UID {
			return errors.New("service account token has been invalidated")
		}
	}
	return nil
}

// keySet is the answer of /openid/v1/jwks, by which others verify tokens.
func (c *Cluster) keySet() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: c.signingKey().Public(), KeyID: "sim", Algorithm: string(jose.EdDSA), Use: "sig",
	}}})
}
