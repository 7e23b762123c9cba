// Package plan rehearses a runbook on a twin of its cluster, along the same path
// as a run, and holds what came of it: what would be done, why, in which waves,
// what it would cost, and what could not be known. A plan can be shown, saved,
// and put in force over a run.
package plan
