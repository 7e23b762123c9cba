// Package manifest holds what is meant to be in the cluster: a set of desired
// objects as a value of the runbook, how it is read, in which order it goes in,
// and which objects of an earlier manifest it leaves behind. kube.apply and
// diff.live both plan through it, so that what was reviewed is what is applied.
package manifest
