package event

// Sink takes events in the order in which they happen. Emit is called from one
// goroutine at a time (wrap with Serial otherwise) and must not keep the body.
type Sink interface{ Emit(Event) }

// SinkFunc is a function as a Sink.
type SinkFunc func(Event)

// Emit implements Sink.
func (f SinkFunc) Emit(e Event) { f(e) }

// Discard drops everything.
var Discard Sink = SinkFunc(func(Event) {})

// Multi sends every event to each sink in turn; nil ones are left out.
func Multi(sinks ...Sink) Sink {
	kept := make([]Sink, 0, len(sinks))
	for _, s := range sinks {
		if s != nil {
			kept = append(kept, s)
		}
	}
	return SinkFunc(func(e Event) {
		for _, s := range kept {
			s.Emit(e)
		}
	})
}
