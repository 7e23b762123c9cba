// Package journal is the write-ahead log of a run: what makes it possible to
// kill the host at any instant and go on from there.
//
// # On disk
//
// One directory per run, mode 0700, in the state folder
// ($XDG_STATE_HOME/rutter/runs/<run id>, by default ~/.local/state/rutter/runs):
//
//	lock      held with flock by the process that runs; contains its pid
//	journal   the records, mode 0600, only ever appended to
//	blobs/    large values by the hex of their sha256
//
// The journal file is text, a line each. The header says the format's version
// and the run:
//
//	rutter-journal 1 20260101-120000-ab3d
//
// and every record is one line:
//
//	<crc> <len> <type> <chain> <json>
//
// crc is the CRC-32C (8 hex digits) of everything after it and its space, up to
// but without the newline; len the decimal length of json; type one of the
// Type words; chain the hex sha256 over the previous record's chain (raw
// bytes; for the first record the sha256 of the header line) and json. json is
// {"seq":n,"time":"…","body":{…}} with seq counting from 1 and time in RFC 3339
// with nanoseconds, on the run's clock. Type stands outside of the JSON so that
// a listing need not decode the rest.
//
// The bodies are the structs of this package (Begin, Intent, …) in their JSON
// form. Within a format version fields and types are only added; a reader
// ignores fields it does not know and refuses types it does not know (ErrNewer).
//
// testdata/format-1 holds a journal as the first version wrote it: a test reads
// it, so that every later version does.
//
// # In the cluster
//
// With --state cluster the same files are Secrets of type rutter.dev/journal in
// the namespace of the mesh's Lease (Secrets):
//
//	rutter.<run>.<file>      names the file; annotation rutter.dev/chunks counts its chunks
//	rutter.<run>.<file>.<n>  the nth chunk, from 0; annotation rutter.dev/sha256 is of its data
//
// Slashes in a file's name are dots. Every write is on condition of the version
// that it was made for, so that of two processes that append to a journal the
// second breaks off. A chunk that is missing, or is not what its sum says, is a
// ChunkError; one more than was counted is of a write that was cut short.
//
// # Reading after a crash
//
// A line at the very end that has no newline, or holds bytes that never reached
// the disk (NUL), with nothing good behind it, is a torn tail: the write that a
// crash cut short. It was never synced, so nobody relied on it; Open cuts it
// off and syncs. Any other line that does not verify is damage to what somebody
// relied on, and Open refuses with record number and byte offset.
//
// A failed write or sync is final (ErrBroken): after a failed fsync the kernel
// may have dropped the dirty pages, so a later fsync that succeeds proves
// nothing. The way on is to resume, which reads what is really there.
package journal
