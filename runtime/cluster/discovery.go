package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"rutter.dev/rutter/runtime/diag"
)

// catalogue is discovery, read once and kept in memory. CRDs appear during a
// run, so a miss reads it again, once.
type catalogue struct {
	load func() ([]*metav1.APIGroup, []*metav1.APIResourceList, error)

	mu     sync.Mutex
	gen    int // counts loads; 0: none yet
	byKind map[schema.GroupVersionKind]Resource
	names  map[string][]Resource // every name that kubectl takes, preferred first
	all    []Resource            // preferred versions, sorted
	broken map[schema.GroupVersion]error
}

// find looks up with f; on a miss it reads discovery again, unless somebody
// else did so since.
func (k *catalogue) find(f func() (Resource, bool)) (Resource, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fresh := false
	if k.gen == 0 {
		if err := k.refresh(); err != nil {
			return Resource{}, false, err
		}
		fresh = true
	}
	if r, ok := f(); ok || fresh {
		return r, ok, nil
	}
	if err := k.refresh(); err != nil {
		return Resource{}, false, err
	}
	r, ok := f()
	return r, ok, nil
}

// refresh reads discovery. The caller holds mu.
func (k *catalogue) refresh() error {
	groups, lists, err := k.load()
	var partial *discovery.ErrGroupDiscoveryFailed
	k.broken = nil
	if errors.As(err, &partial) {
		k.broken = partial.Groups // an aggregated API is down; the rest is good
	} else if err != nil {
		return err
	}
	if err := complete(groups); err != nil {
		return err
	}
	rank := versionRank(groups)
	k.byKind, k.names, k.all = map[schema.GroupVersionKind]Resource{}, map[string][]Resource{}, nil
	type entry struct {
		res    Resource
		api    metav1.APIResource
		groupN int
		versN  int
	}
	var entries []entry
	for _, l := range lists {
		gv, err := gvOf(l)
		if err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		for _, a := range l.APIResources {
			if strings.Contains(a.Name, "/") {
				continue // subresource
			}
			r := Resource{GVK: gv.WithKind(a.Kind), GVR: gv.WithResource(a.Name), Namespaced: a.Namespaced, Verbs: a.Verbs}
			if _, seen := k.byKind[r.GVK]; !seen {
				k.byKind[r.GVK] = r
			}
			n := rank[gv]
			entries = append(entries, entry{res: r, api: a, groupN: n[0], versN: n[1]})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.groupN, b.groupN), cmp.Compare(a.versN, b.versN))
	})
	preferred := map[schema.GroupResource]bool{}
	for _, e := range entries {
		k.index(e.res, e.api)
		if gr := e.res.GVR.GroupResource(); !preferred[gr] {
			preferred[gr] = true
			if e.res.Can("list") {
				k.all = append(k.all, e.res)
			}
		}
	}
	slices.SortFunc(k.all, func(a, b Resource) int {
		return cmp.Or(cmp.Compare(a.GVR.Group, b.GVR.Group), cmp.Compare(a.GVR.Resource, b.GVR.Resource))
	})
	k.gen++
	return nil
}

// complete refuses a server that answers 404 to /api, which client-go takes for
// one without the core group: every Kubernetes API server has it, and a proxy
// that is not up yet does not. Who believes it takes a backup of half a cluster
// for a whole one.
func complete(groups []*metav1.APIGroup) error {
	if slices.ContainsFunc(groups, func(g *metav1.APIGroup) bool { return g.Name == "" }) {
		return nil
	}
	return halfServer("/api", nil)
}

func halfServer(path string, cause error) error {
	return &RequestError{
		Subject: "discovery", Kind: ErrUnreachable, cause: cause,
		Message: "the server names no API groups under " + path + ", and every Kubernetes API server does; is it up, and is the context's address the cluster's?",
	}
}

// discovery maps what refresh says.
func (c *Client) discovery(ctx context.Context, err error) error {
	var bare *RequestError
	if errors.As(err, &bare) {
		return err
	}
	if err := c.request(ctx, "discovery", Ref{}, nil).mapError(err); !errors.Is(err, ErrNoKind) && !errors.Is(err, ErrNotFound) {
		return err
	}
	return halfServer("/apis", err)
}

// index adds every name by which kubectl knows the resource: plural, singular,
// kind and short names, bare, with the group, and with version and group.
func (k *catalogue) index(r Resource, a metav1.APIResource) {
	names := append([]string{r.GVR.Resource, a.SingularName, strings.ToLower(a.Kind)}, a.ShortNames...)
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if n == "" {
			continue
		}
		n = strings.ToLower(n)
		k.names[n] = append(k.names[n], r)
		if r.GVR.Group != "" {
			k.names[n+"."+r.GVR.Group] = append(k.names[n+"."+r.GVR.Group], r)
		}
		long := strings.TrimSuffix(n+"."+r.GVR.Version+"."+r.GVR.Group, ".")
		k.names[long] = append(k.names[long], r)
	}
}

// versionRank orders groups as the server does (the core group first) and
// versions by preference.
func versionRank(groups []*metav1.APIGroup) map[schema.GroupVersion][2]int {
	rank := map[schema.GroupVersion][2]int{}
	for i, g := range groups {
		if g.Name == "" {
			i = -1
		}
		for j, v := range g.Versions {
			if v.Version == g.PreferredVersion.Version {
				j = -1
			}
			rank[schema.GroupVersion{Group: g.Name, Version: v.Version}] = [2]int{i, j}
		}
	}
	return rank
}

// Resolve implements Reader.
func (c *Client) Resolve(ctx context.Context, name string) (Resource, error) {
	if err := ctx.Err(); err != nil {
		return Resource{}, err
	}
	key := strings.ToLower(name)
	r, ok, err := c.api.find(func() (Resource, bool) {
		if l := c.api.names[key]; len(l) > 0 {
			return l[0], true
		}
		return Resource{}, false
	})
	if err != nil {
		return Resource{}, c.discovery(ctx, err)
	}
	if !ok {
		return Resource{}, c.unknownName(name)
	}
	return r, nil
}

func (c *Client) unknownName(name string) error {
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	msg := "no resource of that name"
	known := make([]string, 0, len(c.api.names))
	for n := range c.api.names {
		known = append(known, n)
	}
	if best := diag.Nearest(strings.ToLower(name), known); best != "" {
		msg += fmt.Sprintf(": did you mean %q?", best)
	}
	msg += brokenNote(c.api.broken)
	return &RequestError{Subject: fmt.Sprintf("%q", name), Kind: ErrNoKind, Message: msg}
}

func brokenNote(broken map[schema.GroupVersion]error) string {
	if len(broken) == 0 {
		return ""
	}
	var gvs []string
	for gv := range broken {
		gvs = append(gvs, gv.String())
	}
	slices.Sort(gvs)
	return " (the server could not list " + strings.Join(gvs, ", ") + ")"
}

// ResourceFor implements Reader. A Ref's version that the server does not serve
// is an error even when it serves another: the caller's object is written in it.
func (c *Client) ResourceFor(ctx context.Context, gvk schema.GroupVersionKind) (Resource, error) {
	if err := ctx.Err(); err != nil {
		return Resource{}, err
	}
	r, ok, err := c.api.find(func() (Resource, bool) {
		r, ok := c.api.byKind[gvk]
		return r, ok
	})
	if err != nil {
		return Resource{}, c.discovery(ctx, err)
	}
	if ok {
		return r, nil
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	msg := "it does not serve " + gvk.GroupVersion().String()
	var served []string
	for k := range c.api.byKind {
		if k.Group == gvk.Group && k.Kind == gvk.Kind {
			served = append(served, k.Version)
		}
	}
	if slices.Sort(served); len(served) > 0 {
		msg += ", but " + strings.Join(served, ", ")
	}
	return Resource{}, &RequestError{
		Subject: strings.ToLower(gvk.GroupKind().String()), Kind: ErrNoKind,
		Message: msg + brokenNote(c.api.broken),
	}
}

// Resources implements Reader.
func (c *Client) Resources(ctx context.Context) ([]Resource, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	// Read again each time: callers (backup) must not miss a new CRD.
	if err := c.api.refresh(); err != nil {
		return nil, c.discovery(ctx, err)
	}
	return slices.Clone(c.api.all), nil
}

// Version implements Reader.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	rctx, x, cancel := c.begin(ctx)
	defer cancel()
	raw, err := c.disc.RESTClient().Get().AbsPath("/version").DoRaw(rctx)
	if err != nil {
		return VersionInfo{}, c.request(ctx, "server version", Ref{}, x).mapError(err)
	}
	var v struct {
		GitVersion, Major, Minor string
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return VersionInfo{}, fmt.Errorf("server version: %w", err)
	}
	info := VersionInfo{Git: v.GitVersion}
	// Hosted clusters write "33+" for the minor version.
	if info.Major, err = strconv.Atoi(strings.TrimRight(v.Major, "+")); err != nil {
		return info, fmt.Errorf("server version %q: major %q is no number", v.GitVersion, v.Major)
	}
	if info.Minor, err = strconv.Atoi(strings.TrimRight(v.Minor, "+")); err != nil {
		return info, fmt.Errorf("server version %q: minor %q is no number", v.GitVersion, v.Minor)
	}
	return info, nil
}

// UID implements Reader.
func (c *Client) UID(ctx context.Context) (string, error) {
	c.uidMu.Lock()
	defer c.uidMu.Unlock()
	if c.uid != "" {
		return c.uid, nil
	}
	ns, err := c.Get(ctx, Ref{Version: "v1", Kind: "Namespace", Name: "kube-system"})
	if err != nil {
		return "", fmt.Errorf("cluster identity: %w", err)
	}
	c.uid = string(ns.GetUID())
	return c.uid, nil
}
