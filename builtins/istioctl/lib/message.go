package lib

import (
	"encoding/json"
	"fmt"

	"istio.io/istio/pkg/config/analysis/diag"
)

// Levels of a Message, as Istio's analysis has them.
const (
	LevelInfo    = "Info"
	LevelWarning = "Warning"
	LevelError   = "Error"
)

// Message is one finding of Istio's precheck or analysis.
type Message struct {
	Code  string `json:"code"`    // "IST0101"
	Level string `json:"level"`   // LevelInfo, LevelWarning or LevelError
	Text  string `json:"message"` // for people
	// Resource is the object that it is about, as Istio writes it
	// ("Deployment web.shop"; "Cluster" for the cluster itself), or empty.
	Resource string `json:"origin,omitempty"`
	// Reference is the file and line, for objects from files.
	Reference string `json:"reference,omitempty"`
	// URL is Istio's page about the code.
	URL string `json:"documentationUrl,omitempty"`
}

// String renders the message as istioctl does.
func (m Message) String() string {
	where := m.Resource
	if m.Reference != "" {
		where += " " + m.Reference
	}
	if where != "" {
		where = " (" + where + ")"
	}
	return fmt.Sprintf("%s [%s]%s %s", m.Level, m.Code, where, m.Text)
}

// decodeMessages reads the library's JSON.
func decodeMessages(b []byte) ([]Message, error) {
	var out []Message
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("istio messages: %w", err)
	}
	return out, nil
}

// fromDiag turns the library's messages into ours.
func fromDiag(ms diag.Messages) ([]Message, error) {
	b, err := json.Marshal(ms)
	if err != nil {
		return nil, fmt.Errorf("istio messages: %w", err)
	}
	return decodeMessages(b)
}
