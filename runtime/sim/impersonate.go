package sim

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"rutter.dev/rutter/runtime/sim/rbac"
)

// impersonate returns who a request is to be made as: its maker unless headers
// ask for another, which the maker must be allowed to be. As the API server of
// 1.36 does (endpoints/filters/impersonation) it tries the constrained mode
// that fits the wanted user first, then the old one that the verb impersonate
// allows, and refuses with the words of the first.
func (c *Cluster) impersonate(h http.Header, a attributes) (*User, error) {
	want, err := wantedUser(h)
	if err != nil || want == nil {
		return a.user, err
	}
	if !rbac.Privileged(a.user) {
		first := c.impersonateConstrained(want, a)
		if first != nil && c.impersonateLegacy(want, a.user, "", "impersonate") != nil {
			return nil, first
		}
	}
	if ns, _, err := serviceaccount.SplitUsername(want.Name); err == nil && len(want.Groups) == 0 {
		want.Groups = serviceaccount.MakeGroupNames(ns)
	}
	either := slices.Contains(want.Groups, user.AllAuthenticated) || slices.Contains(want.Groups, user.AllUnauthenticated)
	switch {
	case want.Name == user.Anonymous && !slices.Contains(want.Groups, user.AllUnauthenticated):
		want.Groups = append(want.Groups, user.AllUnauthenticated)
	case want.Name != user.Anonymous && !either:
		want.Groups = append(want.Groups, user.AllAuthenticated)
	}
	return want, nil
}

// wantedUser reads the headers of impersonation; nil when there are none.
func wantedUser(h http.Header) (*User, error) {
	want := &User{Name: h.Get(authenticationv1.ImpersonateUserHeader), UID: h.Get(authenticationv1.ImpersonateUIDHeader), Groups: slices.Clone(h[authenticationv1.ImpersonateGroupHeader])}
	for name, values := range h {
		key, ok := strings.CutPrefix(name, authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		key = strings.ToLower(key)
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		if want.Extra == nil {
			want.Extra = map[string][]string{}
		}
		want.Extra[key] = append(want.Extra[key], values...)
	}
	if want.Name != "" {
		return want, nil
	}
	if want.UID != "" || len(want.Groups) > 0 || want.Extra != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %#v without impersonating a user name", want))
	}
	return nil, nil
}

func (c *Cluster) impersonateConstrained(want *User, a attributes) error {
	mode := "user-info"
	if _, _, err := serviceaccount.SplitUsername(want.Name); err == nil {
		mode = "serviceaccount"
	} else if strings.HasPrefix(want.Name, "system:node:") {
		mode = "arbitrary-node"
	}
	on := a
	on.verb = "impersonate-on:" + mode + ":" + a.verb
	if err := c.authorize(on); err != nil {
		return err
	}
	return c.impersonateLegacy(want, a.user, authenticationv1.GroupName, "impersonate:"+mode)
}

// impersonateLegacy asks whether the maker may be each thing that the wanted
// user is. group is that of users and groups.
func (c *Cluster) impersonateLegacy(want, maker *User, group, verb string) error {
	as := func(group, resource, sub, namespace, name string) error {
		return c.authorize(attributes{user: maker, verb: verb, group: group, resource: resource, sub: sub, namespace: namespace, name: name})
	}
	var err error
	if ns, name, serr := serviceaccount.SplitUsername(want.Name); serr == nil {
		err = as(group, "serviceaccounts", "", ns, name)
	} else {
		err = as(group, "users", "", "", want.Name)
	}
	if err != nil {
		return err
	}
	for _, g := range want.Groups {
		if err := as(group, "groups", "", "", g); err != nil {
			return err
		}
	}
	for _, key := range sortedKeys(want.Extra) {
		for _, v := range want.Extra[key] {
			if err := as(authenticationv1.GroupName, "userextras", key, "", v); err != nil {
				return err
			}
		}
	}
	if want.UID != "" {
		return as(authenticationv1.GroupName, "uids", "", "", want.UID)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
