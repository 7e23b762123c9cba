package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
)

var listOptionsKind = schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}

// validListOptions refuses parameters of a list or watch that contradict each
// other, by the API server's own rules.
func validListOptions(o metav1.ListOptions) error {
	in := internalversion.ListOptions{
		Watch: o.Watch, ResourceVersion: o.ResourceVersion, ResourceVersionMatch: o.ResourceVersionMatch, Continue: o.Continue, SendInitialEvents: o.SendInitialEvents,
	}
	if errs := validation.ValidateListOptions(&in, true); len(errs) > 0 {
		return apierrors.NewInvalid(listOptionsKind, "", errs)
	}
	return nil
}

// list answers a list request: the present state, or that of the version that
// the request or its continue token names. The resourceVersion semantics are
// those documented under "API concepts".
func (c *Cluster) list(q *query) (listing, error) {
	o := q.list
	if err := validListOptions(o); err != nil {
		return listing{}, err
	}
	f, err := q.filter()
	if err != nil {
		return listing{}, err
	}
	var from nsName
	rv, limit := c.st.rv, int(o.Limit)
	switch {
	case o.Continue != "":
		if from, rv, err = c.continued(o, q.namespace); err != nil {
			return listing{}, err
		}
	case o.ResourceVersion == "0":
		limit = 0 // any state will do, and the cached one is answered whole
	case o.ResourceVersion != "":
		want, err := c.reached(o.ResourceVersion)
		if err != nil {
			return listing{}, err
		}
		if o.ResourceVersionMatch == metav1.ResourceVersionMatchExact || o.ResourceVersionMatch == "" && limit > 0 {
			rv = want
		}
	}
	all, err := c.entriesAt(f, rv)
	if err != nil {
		return listing{}, err
	}
	return cut(all, from, rv, limit, q.namespace)
}

// reached reads a resourceVersion that the request must not be older than. One
// that the cluster has not come to yet times out.
func (c *Cluster) reached(text string) (uint64, error) {
	rv, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: resourceVersion: Invalid value: %q: %v", text, err))
	}
	if rv <= c.st.rv {
		return rv, nil
	}
	e := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rv, c.st.rv), 1)
	e.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return 0, e
}

// prefix begins the keys of what a list in the namespace holds.
func prefix(namespace string) string {
	if namespace == "" {
		return "/"
	}
	return "/" + namespace + "/"
}

func storageKey(k nsName) string { return strings.TrimSuffix("/"+k.namespace, "/") + "/" + k.name }

// inconsistent is what the server says beside a token that goes on from the
// present state.
const inconsistent = "The provided continue parameter is too old to display a consistent list result. " +
	"You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
	"Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."

// continued reads a continue token: the key to go on from, and the version that
// the list was begun at. A version that is forgotten is 410 Expired, with a
// token that goes on from the present.
func (c *Cluster) continued(o metav1.ListOptions, namespace string) (nsName, uint64, error) {
	if o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return nsName{}, 0, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	key, rv, err := storage.DecodeContinue(o.Continue, prefix(namespace))
	if err != nil {
		return nsName{}, 0, apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: %v", err))
	}
	from := nsName{name: strings.TrimPrefix(key, "/")}
	if ns, name, ok := strings.Cut(from.name, "/"); ok {
		from = nsName{ns, name}
	}
	switch {
	case rv < 0: // of an answer that said Expired
		return from, c.st.rv, nil
	case uint64(rv) < c.st.floor:
		token, err := storage.EncodeContinue(key, prefix(namespace), -1)
		if err != nil {
			return from, 0, apierrors.NewInternalError(err)
		}
		e := apierrors.NewResourceExpired(inconsistent)
		e.ErrStatus.ListMeta.Continue = token
		return from, 0, e
	case uint64(rv) > c.st.rv:
		return from, 0, apierrors.NewBadRequest("invalid continue token: it names a version that does not exist")
	}
	return from, uint64(rv), nil
}

// entriesAt are the matching entries as they were at a version, in order.
func (c *Cluster) entriesAt(f filter, rv uint64) ([]*entry, error) {
	if rv == c.st.rv {
		return c.selectEntries(f), nil
	}
	changes, ok := c.st.since(rv)
	if !ok {
		return nil, apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	}
	was := map[nsName]*entry{} // before the first change after rv; nil when it was not there
	for _, ch := range changes {
		k := nsName{ch.key.namespace, ch.key.name}
		if _, seen := was[k]; ch.key.gr == f.gr && !seen {
			was[k] = ch.prev
		}
	}
	if len(was) == 0 {
		return c.selectEntries(f), nil
	}
	var keys []nsName
	t := c.st.table(f.gr)
	for _, k := range t.span(f.namespace) {
		if _, changed := was[k]; !changed {
			keys = append(keys, k)
		}
	}
	for k, e := range was {
		if e != nil && (f.namespace == "" || k.namespace == f.namespace) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareNames)
	var out []*entry
	for _, k := range keys {
		e, changed := was[k]
		if !changed {
			e = t.items[k]
		}
		if f.matches(e) {
			out = append(out, e)
		}
	}
	return out, nil
}

func compareNames(a, b nsName) int {
	switch {
	case a.less(b):
		return -1
	case b.less(a):
		return 1
	}
	return 0
}

// cut takes one page from the entries of a list, beginning at a key.
func cut(all []*entry, from nsName, rv uint64, limit int, namespace string) (listing, error) {
	if from.name != "" {
		if from.namespace == "" {
			from.namespace = namespace
		}
		i, _ := slices.BinarySearchFunc(all, from, func(e *entry, k nsName) int {
			return compareNames(nsName{e.obj.GetNamespace(), e.obj.GetName()}, k)
		})
		all = all[i:]
	}
	l := listing{rv: rv, entries: all}
	if limit <= 0 || limit >= len(all) {
		return l, nil
	}
	l.entries, l.remaining = all[:limit], len(all)-limit
	last := l.entries[limit-1].obj
	var err error
	// #nosec G115 -- versions are counted from one
	if l.token, err = storage.EncodeContinue(storageKey(nsName{last.GetNamespace(), last.GetName()})+"\x00", prefix(namespace), int64(rv)); err != nil {
		return l, apierrors.NewInternalError(err)
	}
	return l, nil
}

// Compact forgets all changes so far, as etcd does every few minutes: watches
// from an older version and lists that were begun before get 410.
func (c *Cluster) Compact() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st.floor, c.st.history = c.st.rv, nil
}
