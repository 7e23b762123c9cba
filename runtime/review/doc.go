// Package review compares what two versions of a runbook do: the plans that
// rehearsals of both made on the same clusters. A change of text that changes
// nothing done is no difference, and one word that changes what is done is.
//
// It reads plans and nothing else, and its functions are safe for concurrent
// use on different values.
package review
