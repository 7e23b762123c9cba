package sim

import (
	"context"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
)

// User is who makes a request. Members of the group system:masters may do
// everything; of others the cluster's roles decide.
type User = user.DefaultInfo

// administrator is who makes the requests that bring no credentials.
var administrator = &User{Name: "kubernetes-admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// anonymous is that when Options.Anonymous is set.
var anonymous = &User{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}

// controllerUser is who the simulated controllers are to admission.
var controllerUser = &User{Name: "system:kube-controller-manager", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// ConfigFor is Config for a client that is the user, as if by a certificate.
// The group system:authenticated is added.
func (c *Cluster) ConfigFor(u User) *rest.Config {
	who := authenticated(u)
	cfg := c.Config()
	cfg.Transport = transport{c, who}
	return cfg
}

// AddToken makes a bearer token that stands for the user, as a line of the API
// server's token file does. It is not persisted.
func (c *Cluster) AddToken(token string, u User) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens == nil {
		c.tokens = map[string]*User{}
	}
	c.tokens[token] = authenticated(u)
}

// RevokeToken makes requests with a token of AddToken unauthorized (401).
func (c *Cluster) RevokeToken(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, token)
}

func authenticated(u User) *User {
	if !slices.Contains(u.Groups, user.AllAuthenticated) {
		u.Groups = append(slices.Clone(u.Groups), user.AllAuthenticated)
	}
	return &u
}

type userKey struct{}

// withUser says who makes a request that comes through the transport.
func withUser(ctx context.Context, u *User) context.Context {
	return context.WithValue(ctx, userKey{}, u)
}

// authenticate finds out who makes a request: by the transport, by a bearer
// token, or nobody in particular. The headers of impersonation are not looked
// at.
func (c *Cluster) authenticate(r *http.Request) (*User, error) {
	if u, ok := r.Context().Value(userKey{}).(*User); ok {
		return u, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		if c.opts.Anonymous {
			return anonymous, nil
		}
		return administrator, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u, _, err := c.tokenUser(strings.TrimSpace(token), []string{issuer})
	if err != nil || u == nil {
		return nil, errUnauthorized()
	}
	return u, nil
}

// tokenUser is who a bearer token stands for, and for which of the audiences
// it is good. It returns nil for a token that nobody issued, and an error for
// one that is good no longer.
func (c *Cluster) tokenUser(token string, audiences []string) (*User, []string, error) {
	if u := c.tokens[token]; u != nil {
		return u, audiences, nil
	}
	return c.serviceAccountUser(token, audiences)
}

func errUnauthorized() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnauthorized, Reason: metav1.StatusReasonUnauthorized, Message: "Unauthorized",
	}}
}
