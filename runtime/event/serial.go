package event

import "sync"

// Serial makes s safe for concurrent Emit calls.
func Serial(s Sink) Sink {
	var mu sync.Mutex
	return SinkFunc(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		s.Emit(e)
	})
}

// Recorder keeps every event, for tests and transcripts. Not safe for
// concurrent use; see Serial.
type Recorder struct{ Events []Event }

// Emit implements Sink.
func (r *Recorder) Emit(e Event) { r.Events = append(r.Events, e) }
