// Package plain turns the JSON trees that Kubernetes objects are (maps, slices,
// strings, numbers, booleans) into text and back. encoding/json does the same
// by reflection and visits every byte twice; reading and writing objects is
// most of what rutter does, so the plain case has its own code. Whatever is not
// plain is left to the general library, which stays the one authority on what
// is valid. Its functions are safe for concurrent use.
package plain
