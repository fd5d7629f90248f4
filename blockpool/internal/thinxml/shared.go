package thinxml

import (
	"encoding/binary"
	"fmt"
)

// definitions holds mappings under names, packed: four varints each, relative
// to the mapping before. That is about 8 bytes, where a Mapping has 32.
type definitions struct {
	limit int // bytes, of names, mappings and bookkeeping
	used  int
	named map[string][]byte
}

// perDefinition is what an entry of the map costs beside its bytes.
const perDefinition = 64

// A cursor unpacks the mappings of a definition.
type cursor struct {
	rest []byte
	last Mapping
}

// next returns the next mapping; ok is false behind the last.
func (c *cursor) next() (m Mapping, ok bool) {
	if len(c.rest) == 0 {
		return Mapping{}, false
	}
	m.Origin = c.last.Origin + c.last.Length + c.uvarint()
	m.Data = c.last.Data + uint64(c.varint())
	m.Length = c.uvarint()
	m.Time = uint32(c.uvarint())
	c.last = m
	return m, true
}

// uvarint and varint cannot fail: appendMapping wrote the bytes, in memory.
func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.rest)
	c.rest = c.rest[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.rest)
	c.rest = c.rest[n:]
	return v
}

// appendMapping packs m, which comes after last.
func appendMapping(b []byte, last, m Mapping) []byte {
	b = binary.AppendUvarint(b, m.Origin-last.Origin-last.Length)
	b = binary.AppendVarint(b, int64(m.Data-last.Data))
	b = binary.AppendUvarint(b, m.Length)
	return binary.AppendUvarint(b, uint64(m.Time))
}

// readDefinition keeps what a def holds. References in it, to definitions
// before it, are resolved here; since mappings must ascend, no definition can
// hold another twice, so nesting cannot multiply them.
func (r *Reader) readDefinition(t *tag) error {
	line := t.line
	name, err := r.reference(t)
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return &Error{Line: line, Element: "def", Attr: "name", Why: fmt.Sprintf(format, args...)}
	}
	if _, twice := r.shared.named[name]; twice {
		return bad("a second definition of %.40q", name)
	}
	def := definition{rules: &r.rules, name: name}
	for r.shared.room(def) {
		t, err := r.tag()
		if err != nil {
			return err
		}
		if t.end && string(t.name) == "def" {
			r.shared.add(def)
			return nil
		}
		if err := r.readInto(&def, t); err != nil {
			return err
		}
	}
	return bad("definitions take more than %d bytes", r.shared.limit)
}

// readInto adds what t begins to a definition.
func (r *Reader) readInto(def *definition, t *tag) error {
	switch {
	case t.end:
		return r.unexpected(t)
	case string(t.name) == "ref":
		line := t.line
		c, err := r.readRef(t)
		if err != nil {
			return err
		}
		for m, ok := c.next(); ok; m, ok = c.next() {
			if err := r.check(def.judge(m).ofRef(), line); err != nil {
				return err
			}
			def.add(m)
		}
	default:
		m, err := r.readMapping(t, def.judge)
		if err != nil {
			return err
		}
		def.add(m)
	}
	return nil
}

// A definition is one that is being read.
type definition struct {
	rules  *rules
	name   string
	packed []byte
	last   Mapping
}

func (d *definition) judge(m Mapping) *Error {
	if err := d.rules.block(m); err != nil {
		return err
	}
	if end := d.last.Origin + d.last.Length; m.Origin < end {
		return badRange("origin_begin", "block %d of definition %.40q comes after block %d", m.Origin, d.name, end-1)
	}
	return nil
}

func (d *definition) add(m Mapping) {
	d.packed = appendMapping(d.packed, d.last, m)
	d.last = m
}

func (d *definition) size() int { return len(d.name) + len(d.packed) + perDefinition }

func (d *definitions) room(def definition) bool { return d.used+def.size() <= d.limit }

func (d *definitions) add(def definition) {
	if d.named == nil {
		d.named = map[string][]byte{}
	}
	d.named[def.name] = def.packed
	d.used += def.size()
}

// readRef reads a ref's element up to its end and finds what it refers to.
func (r *Reader) readRef(t *tag) (cursor, error) {
	line := t.line
	if t.end {
		return cursor{}, r.unexpected(t)
	}
	name, err := r.reference(t)
	if err != nil {
		return cursor{}, err
	}
	packed, ok := r.shared.named[name]
	if !ok {
		return cursor{}, &Error{Line: line, Element: "ref", Attr: "name", Why: fmt.Sprintf("no definition of %.40q before it", name)}
	}
	return cursor{rest: packed}, r.end("ref")
}

// ofRef says the error of a mapping as one of the ref that it came through.
func (e *Error) ofRef() *Error {
	if e != nil {
		e.Element, e.Attr = "ref", "name"
	}
	return e
}

// reference returns the name of a def or ref, its only attribute.
func (r *Reader) reference(t *tag) (string, error) {
	name, err := r.text(t, "name")
	if err != nil {
		return "", err
	}
	for _, a := range t.attrs {
		if string(a.name) != "name" {
			return "", r.s.badIn(t, string(a.name), "no such attribute")
		}
	}
	return name, nil
}
