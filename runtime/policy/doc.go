// Package policy reads an organization's policy file, rutter.yaml, and the rules
// in Starlark that it names, into the gate.Policy that a run is held to. It says
// everything that is wrong with a file at once, each with file:line:col, and in
// words what a policy allows.
//
// A policy is read by the host before any runbook is loaded, from its own folder
// and no other. What is read is not changed any more; a runbook has no builtin
// that sees it, and its loader refuses the files of the rules (Files).
package policy
