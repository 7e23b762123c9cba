// Package mesh makes simulated meshes: a Spec says what is in one, Build makes
// its objects around an Istio manifest that was rendered elsewhere, Retag makes
// a stand-in for an older manifest, and StubInjector injects sidecars where
// Istio's own template is not linked. All of it is a function of its input.
package mesh
