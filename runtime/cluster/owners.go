package cluster

// Owners leads from objects to what made them: from a pod past its ReplicaSet to
// the Deployment. It knows of the objects between that were added (ReplicaSets,
// Jobs), by Ref.ID.
type Owners map[string]Ref

// Add takes in what controls o, which is between others; nothing where none does.
func (w Owners) Add(o *Object) {
	if up, ok := ControllerOf(o); ok {
		w[RefOf(o).ID()] = up
	}
}

// Of is the uppermost that is known to have made o: o itself where nothing did.
func (w Owners) Of(o *Object) Ref {
	if up, ok := ControllerOf(o); ok {
		return w.Above(up)
	}
	return RefOf(o)
}

// Above is what made ref, if that is known; else ref.
func (w Owners) Above(ref Ref) Ref {
	if up, ok := w[ref.ID()]; ok {
		return up
	}
	return ref
}
