package plane

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// leeway is how long past its expiry the API server takes a token
// (jwt.DefaultLeeway in its authenticator, pkg/serviceaccount/jwt.go).
const leeway = jwt.DefaultLeeway

// Token makes a token of a ServiceAccount that the API server takes for ttl
// from now and not longer than ten seconds more (it remembers a token that was
// good for that long). The TokenRequest API grants nothing under ten minutes,
// so it is signed here, with the API server's key and with the claims that it
// gives.
func (p *Plane) Token(ctx context.Context, namespace, serviceAccount string, ttl time.Duration) (string, error) {
	client, err := kubernetes.NewForConfig(p.Config())
	if err != nil {
		return "", err
	}
	sa, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, serviceAccount, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, serviceAccount, err)
	}
	key, err := p.pki().readKey("sa.key")
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, serviceAccount, err)
	}
	now := time.Now()
	return jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: issuer, Audience: jwt.Audience{issuer}, Subject: "system:serviceaccount:" + namespace + ":" + serviceAccount,
		IssuedAt: jwt.NewNumericDate(now.Add(-time.Hour)), NotBefore: jwt.NewNumericDate(now.Add(-time.Hour)),
		Expiry: jwt.NewNumericDate(now.Add(ttl - leeway)),
	}).Claims(map[string]any{"kubernetes.io": map[string]any{
		"namespace":      namespace,
		"serviceaccount": map[string]any{"name": sa.Name, "uid": string(sa.UID)},
	}}).Serialize()
}
