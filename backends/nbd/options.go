package nbd

import "encoding/binary"

// This file reads and writes what options carry. A decoder returns false for
// data that is cut short, has something left over or breaks a limit.

// A reader takes fields off the front of data; after the first that is not
// there it fails for good.
type reader struct {
	data []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.data) {
		r.bad = true
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// string takes a length and so many bytes.
func (r *reader) string() string {
	n := r.uint32()
	if n > maxString {
		r.bad = true
	}
	return string(r.take(int(n)))
}

// done tells whether all was there and nothing else.
func (r *reader) done() bool { return !r.bad && len(r.data) == 0 }

// An infoRequest is the data of INFO and GO.
type infoRequest struct {
	name  string
	wants []uint16
}

func (q *infoRequest) unpack(data []byte) bool {
	r := reader{data: data}
	q.name = r.string()
	q.wants = nil
	for range r.uint16() {
		if r.bad {
			break
		}
		q.wants = append(q.wants, r.uint16())
	}
	return r.done()
}

func (q *infoRequest) append(b []byte) []byte {
	b = appendString(b, q.name)
	b = binary.BigEndian.AppendUint16(b, uint16(len(q.wants)))
	for _, w := range q.wants {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

// A contextRequest is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
type contextRequest struct {
	name    string // of the export
	queries []string
}

func (q *contextRequest) unpack(data []byte) bool {
	r := reader{data: data}
	q.name = r.string()
	q.queries = nil
	for range r.uint32() {
		if r.bad {
			break
		}
		q.queries = append(q.queries, r.string())
	}
	return r.done()
}

func (q *contextRequest) append(b []byte) []byte {
	b = appendString(b, q.name)
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.queries)))
	for _, s := range q.queries {
		b = appendString(b, s)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// finds tells whether one of the queries is for "base:allocation". When the
// contexts are listed, "base:" and no query at all ask for everything.
func (q *contextRequest) finds(listing bool) bool {
	for _, s := range q.queries {
		if s == allocationContext || listing && s == "base:" {
			return true
		}
	}
	return listing && len(q.queries) == 0
}
