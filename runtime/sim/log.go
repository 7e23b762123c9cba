package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// ErrDamaged is wrapped by Open's error when a log is damaged before its end.
var ErrDamaged = errors.New("the simulated cluster's log is damaged")

// log appends every committed change to a file, one checksummed line each,
// written before the request is answered. A line that a killed process left
// unfinished is cut off on opening.
type log struct {
	path string
	file *os.File
	lock *os.File
}

// record is one line: eight hexadecimal digits of CRC-32, a space, JSON.
type record struct {
	Kind      string          `json:"t"` // put, del or now
	RV        uint64          `json:"rv"`
	Seq       uint64          `json:"seq"`
	Now       time.Time       `json:"now"`
	Seed      int64           `json:"seed,omitempty"`
	Born      time.Time       `json:"born,omitzero"` // of the first line: when the cluster was made
	Group     string          `json:"g,omitempty"`
	Resource  string          `json:"r,omitempty"`
	Namespace string          `json:"ns,omitempty"`
	Name      string          `json:"n,omitempty"`
	Object    json.RawMessage `json:"o,omitempty"`
}

func (r record) line() ([]byte, error) {
	j, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(j)+10)
	b = fmt.Appendf(b, "%08x ", crc32.ChecksumIEEE(j))
	b = append(b, j...)
	return append(b, '\n'), nil
}

func parseRecord(line []byte) (record, error) {
	var r record
	if len(line) < 10 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return r, io.ErrUnexpectedEOF
	}
	want, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil {
		return r, err
	}
	body := line[9 : len(line)-1]
	if crc32.ChecksumIEEE(body) != uint32(want) {
		return r, errors.New("checksum mismatch")
	}
	return r, json.Unmarshal(body, &r)
}

// Open makes a cluster whose every committed change is kept in the file at
// path, and takes up the state that is there: objects, uids, resourceVersions
// and virtual time are those of the moment of the last committed change.
// opts.Clock0 and opts.Seed count only for a new file. Close it when done.
//
// One Cluster at a time has the file: the error wraps ErrInUse and names the
// process when it is another's, and ErrDamaged when the file is not readable
// to its end. The lock (a file beside it, path.lock) ends with the process.
func Open(path string, opts Options) (*Cluster, error) {
	lock, err := lockLog(path)
	if err != nil {
		return nil, fmt.Errorf("simulated cluster %s: %w", path, err)
	}
	c, err := openLocked(path, lock, opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("simulated cluster %s: %w", path, err), lock.Close())
	}
	c.lock()
	defer c.unlock()
	c.resync()
	c.settle()
	return c, nil
}

func openLocked(path string, lock *os.File, opts Options) (*Cluster, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	records, err := readRecords(data)
	if err != nil {
		return nil, err
	}
	var c *Cluster
	if len(records) == 0 {
		if c, err = New(opts); err != nil {
			return nil, err
		}
	} else {
		opts.Seed = records[0].Seed
		if b := records[0].Born; !b.IsZero() {
			opts.Clock0 = b
		}
		if c, err = newCluster(opts); err != nil {
			return nil, err
		}
		if err := c.replay(records); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c, c.compact(path, lock)
}

// readRecords parses a log. An unfinished last line is left out.
func readRecords(data []byte) ([]record, error) {
	var out []record
	r := bufio.NewReader(bytes.NewReader(data))
	for n := 1; ; n++ {
		line, err := r.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return out, nil
		}
		rec, perr := parseRecord(line)
		if perr != nil {
			if _, more := r.Peek(1); more != nil {
				return out, nil // torn by a kill
			}
			return nil, fmt.Errorf("line %d: %w: %w; restore the file from a copy or delete it to start anew", n, ErrDamaged, perr)
		}
		out = append(out, rec)
	}
}

// replay rebuilds the state from a log.
func (c *Cluster) replay(records []record) error {
	for _, r := range records {
		c.st.rv, c.seq, c.now = r.RV, r.Seq, r.Now.UTC()
		k := objectKey{schema.GroupResource{Group: r.Group, Resource: r.Resource}, r.Namespace, r.Name}
		prev := c.st.get(k)
		switch r.Kind {
		case "put":
			m := map[string]any{}
			if err := utiljson.Unmarshal(r.Object, &m); err != nil {
				return fmt.Errorf("%s %s/%s: %w", k.gr, k.namespace, k.name, err)
			}
			u := &unstructured.Unstructured{Object: m}
			rv, err := strconv.ParseUint(u.GetResourceVersion(), 10, 64)
			if err != nil {
				return fmt.Errorf("%s %s/%s: resourceVersion: %w", k.gr, k.namespace, k.name, err)
			}
			e := &entry{obj: u, rv: rv}
			c.st.place(k, prev, e)
			if k.gr == grCRDs {
				c.crdChanged(change{key: k, prev: prev, next: e})
			}
		case "del":
			if prev == nil {
				continue
			}
			c.st.table(k.gr).delete(nsName{k.namespace, k.name})
			c.st.unindex(k, prev.obj)
			if k.gr == grCRDs {
				c.crdChanged(change{key: k, prev: prev, next: prev, removed: true})
			}
		}
	}
	c.st.floor = c.st.rv
	return nil
}

// compact writes the present state as a new log, which takes the old one's
// place.
func (c *Cluster) compact(path string, lock *os.File) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	err = c.writeSnapshot(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.log = &log{path: path, file: f, lock: lock}
	return nil
}

func (c *Cluster) writeSnapshot(f *os.File) error {
	w := bufio.NewWriterSize(f, 1<<20)
	head := record{Kind: "now", RV: c.st.rv, Seq: c.seq, Now: c.now, Seed: c.opts.Seed, Born: c.opts.Clock0}
	records := []record{head}
	head.Born = time.Time{}
	for _, k := range c.deadBorn() {
		r := head
		r.Kind, r.Group, r.Resource, r.Namespace, r.Name = "del", k.gr.Group, k.gr.Resource, k.namespace, k.name
		records = append(records, r)
	}
	for _, k := range c.allKeys() {
		b, err := c.st.get(k).json()
		if err != nil {
			return err
		}
		r := head
		r.Kind, r.Group, r.Resource, r.Namespace, r.Name, r.Object = "put", k.gr.Group, k.gr.Resource, k.namespace, k.name, b
		records = append(records, r)
	}
	for _, r := range records {
		line, err := r.line()
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return w.Flush()
}

// persist appends a committed change. The first failure stops all writing,
// because a log with a gap is worth nothing.
func (c *Cluster) persist(ch change) {
	if c.log == nil {
		return
	}
	r := record{
		Kind: "put", RV: c.st.rv, Seq: c.seq, Now: c.now, Group: ch.key.gr.Group, Resource: ch.key.gr.Resource,
		Namespace: ch.key.namespace, Name: ch.key.name,
	}
	if ch.removed {
		r.Kind = "del"
	} else {
		b, err := ch.next.json()
		if err != nil {
			c.logErr = err
			return
		}
		r.Object = b
	}
	c.append(r)
}

func (c *Cluster) persistClock() {
	if c.log != nil {
		c.append(record{Kind: "now", RV: c.st.rv, Seq: c.seq, Now: c.now})
	}
}

func (c *Cluster) append(r record) {
	if c.logErr != nil {
		return
	}
	line, err := r.line()
	if err == nil {
		_, err = c.log.file.Write(line)
	}
	if err != nil {
		c.logErr = fmt.Errorf("simulated cluster %s: %w", c.log.path, err)
	}
}

// writable refuses writes once the log has failed.
func (c *Cluster) writable() error {
	if c.logErr != nil {
		return apierrors.NewInternalError(c.logErr)
	}
	return nil
}

// Close closes the log, if there is one, and reports whether everything went
// into it.
func (c *Cluster) Close() error {
	c.lock()
	defer c.unlock()
	for w := range c.watchers {
		w.close()
	}
	if c.log == nil {
		return nil
	}
	err := errors.Join(c.logErr, c.log.file.Sync(), c.log.file.Close(), c.log.lock.Close())
	c.log = nil
	return err
}
