// Package event is what the engine tells while a run goes on: typed, timed and
// JSON-encodable. Views, the JSON stream, transcripts and reports are made from
// events and nothing else.
package event
