package plane

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// AuditLog is the path of the API server's audit log, one event a line. It
// holds what everybody but the plane's own parts asked.
func (p *Plane) AuditLog() string { return p.file("audit.log") }

// AuditMark is the end of the audit log now, for AuditSince.
func (p *Plane) AuditMark() (int64, error) {
	fi, err := os.Stat(p.AuditLog())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// AuditSince returns the events after a mark (0 for all) that keep accepts. A
// request is in the log when it has been answered, a watch when it has ended
// and, as ResponseStarted, when it began.
func (p *Plane) AuditSince(mark int64, keep func(*auditv1.Event) bool) ([]auditv1.Event, error) {
	out, _, err := p.AuditFrom(mark, keep)
	return out, err
}

// AuditFrom is AuditSince, and returns the mark from which to go on.
func (p *Plane) AuditFrom(mark int64, keep func(*auditv1.Event) bool) (out []auditv1.Event, next int64, err error) {
	f, err := os.Open(p.AuditLog())
	if errors.Is(err, os.ErrNotExist) {
		return nil, mark, nil
	}
	if err != nil {
		return nil, mark, err
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := f.Seek(mark, io.SeekStart); err != nil {
		return nil, mark, err
	}
	for r := bufio.NewReaderSize(f, 1<<20); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return out, mark, nil // without an end: still being written
		}
		if err != nil {
			return nil, mark, err
		}
		mark += int64(len(line))
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, mark, fmt.Errorf("audit log: %w", err)
		}
		if keep == nil || keep(&e) {
			out = append(out, e)
		}
	}
}

// By keeps the events of one user.
func By(user string) func(*auditv1.Event) bool {
	return func(e *auditv1.Event) bool { return e.User.Username == user }
}

// WritesBy keeps those of a user's events that asked for a change.
func WritesBy(user string) func(*auditv1.Event) bool {
	return func(e *auditv1.Event) bool {
		if e.User.Username != user {
			return false
		}
		switch e.Verb {
		case "create", "update", "patch", "delete", "deletecollection":
			return true
		}
		return false
	}
}
