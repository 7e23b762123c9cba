package journal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	journalName = "journal"
	lockName    = "lock"
	blobsName   = "blobs"
	magic       = "rutter-journal"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type chain [sha256.Size]byte

func (c chain) next(payload []byte) chain {
	h := sha256.New()
	h.Write(c[:])
	h.Write(payload)
	return chain(h.Sum(nil))
}

type payload struct {
	Seq  uint64          `json:"seq"`
	Time time.Time       `json:"time"`
	Body json.RawMessage `json:"body"`
}

// What stands before the fields of a payload, as encoding/json writes it.
const (
	beforeSeq  = `{"seq":`
	beforeTime = `,"time":`
	beforeBody = `,"body":`
)

// encoded is the record's payload. Its body was marshalled before, and is not
// gone over again.
func encoded(r *Record) ([]byte, error) {
	at, err := r.Time.UTC().MarshalJSON()
	if err != nil {
		return nil, err
	}
	p := make([]byte, 0, len(r.Body)+100)
	p = strconv.AppendUint(append(p, beforeSeq...), r.Seq, 10)
	p = append(append(p, beforeTime...), at...)
	p = append(append(p, beforeBody...), r.Body...)
	return append(p, '}'), nil
}

func headerLine(run string) string { return fmt.Sprintf("%s %d %s", magic, Format, run) }

// frame is a record's line (with newline) and the chain after it.
func frame(prev chain, r *Record) ([]byte, chain, error) {
	p, err := encoded(r)
	if err != nil {
		return nil, prev, fmt.Errorf("record %d (%s): %w", r.Seq, r.Type, err)
	}
	c := prev.next(p)
	line := make([]byte, 9, 9+12+len(r.Type)+65+len(p)+4)
	line = strconv.AppendInt(line, int64(len(p)), 10)
	line = append(append(append(line, ' '), r.Type...), ' ')
	line = append(hex.AppendEncode(line, c[:]), ' ')
	line = append(line, p...)
	copy(line, fmt.Sprintf("%08x ", crc32.Checksum(line[9:], castagnoli)))
	return append(line, '\n'), c, nil
}

// parts are a line's fields, not yet verified.
type parts struct {
	crc, typ, chain string
	length          int
	payload         []byte
	summed          []byte // what the CRC covers
}

func split(line []byte) (parts, error) {
	var p parts
	f := bytes.SplitN(line, []byte{' '}, 5)
	if len(f) < 5 || len(f[0]) != 8 {
		return p, errors.New("not a record")
	}
	n, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return p, errors.New("its length is not a number")
	}
	return parts{
		crc: string(f[0]), length: n, typ: string(f[2]), chain: string(f[3]),
		payload: f[4], summed: line[9:],
	}, nil
}

// sound verifies a line on its own, without the chain.
func sound(line []byte) (parts, error) {
	p, err := split(line)
	switch {
	case err != nil:
		return p, err
	case p.crc != fmt.Sprintf("%08x", crc32.Checksum(p.summed, castagnoli)):
		return p, errors.New("its checksum does not match")
	case p.length != len(p.payload):
		return p, errors.New("its length does not match")
	}
	return p, nil
}

// parseHeader verifies the header line of run's journal.
func parseHeader(line, run string) error {
	f := strings.Split(line, " ")
	if len(f) < 2 || f[0] != magic {
		return errors.New("not a rutter journal")
	}
	if v, err := strconv.Atoi(f[1]); err != nil || v < 1 {
		return errors.New("its format is not a number")
	} else if v > Format {
		return fmt.Errorf("format %d, this rutter reads up to %d: %w", v, Format, ErrNewer)
	}
	if line != headerLine(run) {
		return fmt.Errorf("header %q, expected %q", line, headerLine(run))
	}
	return nil
}

// scanner reads a journal line by line and keeps the position.
type scanner struct {
	path   string
	run    string
	r      *bufio.Reader
	limit  int64 // read no further; -1: to the end
	offset int64 // of the next line
	seq    uint64
	chain  chain
}

func newScanner(r io.Reader, path, run string, limit int64) *scanner {
	if limit >= 0 {
		r = io.LimitReader(r, limit)
	}
	return &scanner{path: path, run: run, r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

// errTorn ends a scan at a torn tail, which begins at the scanner's offset.
var errTorn = errors.New("torn tail")

// header reads the header line. errTorn: the file ends within it.
func (s *scanner) header() error {
	line, err := s.r.ReadBytes('\n')
	want := headerLine(s.run) + "\n"
	if errors.Is(err, io.EOF) && (strings.HasPrefix(want, string(line)) || torn(line)) {
		return errTorn
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	text := strings.TrimSuffix(string(line), "\n")
	if err := parseHeader(text, s.run); errors.Is(err, ErrNewer) {
		return fmt.Errorf("%s: %w", s.path, err)
	} else if err != nil {
		at := &DamageError{Path: s.path, Record: 0, Offset: 0, Reason: err.Error()}
		if torn(line) {
			return s.goodBehind(at)
		}
		return at
	}
	s.chain = sha256.Sum256([]byte(text))
	s.offset = int64(len(line))
	return nil
}

// next reads and verifies one record. io.EOF at the clean end, errTorn at a
// torn one.
func (s *scanner) next() (Record, error) {
	at := &DamageError{Path: s.path, Record: s.seq + 1, Offset: s.offset}
	p, err := s.verified()
	if err != nil {
		return Record{}, err
	}
	rec, err := decoded(p)
	if err == nil && rec.Seq != s.seq {
		err = fmt.Errorf("it says that it is record %d", rec.Seq)
	}
	if err != nil {
		at.Reason = err.Error()
		return Record{}, at
	}
	return rec, nil
}

// verified reads one record and verifies it and that it follows from the one
// before it; it is not decoded. io.EOF at the clean end, errTorn at a torn one.
func (s *scanner) verified() (parts, error) {
	line, err := s.r.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		if len(line) == 0 {
			return parts{}, io.EOF
		}
		return parts{}, errTorn
	}
	if err != nil {
		return parts{}, fmt.Errorf("%s: %w", s.path, err)
	}
	p, err := sound(line[:len(line)-1])
	c := s.chain.next(p.payload)
	if err == nil && p.chain != hex.EncodeToString(c[:]) {
		err = errors.New("it does not follow from the record before it")
	}
	if err == nil {
		s.seq, s.chain = s.seq+1, c
		s.offset += int64(len(line))
		return p, nil
	}
	at := &DamageError{Path: s.path, Record: s.seq + 1, Offset: s.offset, Reason: err.Error()}
	if !torn(line) {
		return parts{}, at
	}
	return parts{}, s.goodBehind(at)
}

// goodBehind decides about a line with unwritten bytes: a torn tail when
// nothing good follows, else damage.
func (s *scanner) goodBehind(at *DamageError) error {
	for {
		line, err := s.r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return errTorn
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.path, err)
		}
		if _, err := sound(line[:len(line)-1]); err == nil {
			return at
		}
	}
}

// torn reports whether a line holds bytes that were allocated but never
// written. JSON never contains a NUL.
func torn(line []byte) bool { return bytes.IndexByte(line, 0) >= 0 }

// decoded is the record of a line. The checksums vouch for a line that is laid
// out as encoded writes it, so that its body is left for Record.Decode to read;
// any other is read as JSON may be written.
func decoded(p parts) (Record, error) {
	pl, ok := laidOut(p.payload)
	if !ok {
		if err := json.Unmarshal(p.payload, &pl); err != nil {
			return Record{}, err
		}
	}
	return Record{Seq: pl.Seq, Time: pl.Time, Type: Type(p.typ), Body: pl.Body}, nil
}

func laidOut(b []byte) (pl payload, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(beforeSeq))
	if !ok {
		return pl, false
	}
	seq, b, ok := bytes.Cut(b, []byte(beforeTime))
	if !ok {
		return pl, false
	}
	at, b, ok := bytes.Cut(b, []byte(beforeBody))
	if !ok {
		return pl, false
	}
	body, ok := bytes.CutSuffix(b, []byte{'}'})
	if !ok || pl.Time.UnmarshalJSON(at) != nil {
		return pl, false
	}
	var err error
	pl.Seq, err = strconv.ParseUint(string(seq), 10, 64)
	pl.Body = body
	return pl, err == nil
}
