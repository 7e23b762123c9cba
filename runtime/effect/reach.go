package effect

import "slices"

// ClassesOf lists the classes that requests with the given verbs can have, in
// the order of Classes: what a builtin declares that takes any object. Only
// what changes an existing workload is a restart, and only what takes a pod
// away an eviction (Classify).
func ClassesOf(verbs ...Verb) []Class {
	return slices.DeleteFunc(Classes(), func(c Class) bool {
		return !slices.ContainsFunc(verbs, func(v Verb) bool { return reaches(v, c) })
	})
}

func reaches(v Verb, c Class) bool {
	switch {
	case v == Evict:
		return c == Eviction
	case c == Restart:
		return v == Patch || v == Apply || v == Replace
	case c == Eviction:
		return v == Delete
	}
	return true
}
