package thinxml

import (
	"fmt"
	"io"
)

// DefaultMaxShared is how many bytes of definitions a [Reader] keeps unless
// told otherwise: enough for some 5 million mappings.
const DefaultMaxShared = 64 << 20

// Options changes what a [Reader] lets pass.
type Options struct {
	// AnyCount takes devices that do not map as many blocks as they say, as
	// thin_restore does. thin_dump --repair can print such.
	AnyCount bool
	// MaxShared bounds the bytes that definitions take in memory, packed.
	// 0 stands for [DefaultMaxShared].
	MaxShared int
}

// A Reader reads the XML of a pool: [NewReader] its superblock, NextDevice a
// device, NextMapping a mapping of that device. Only when NextDevice has
// returned io.EOF has all of the text been seen, and found right. The first
// error stays.
type Reader struct {
	s       *scanner
	opt     Options
	rules   rules
	where   place
	shared  definitions
	pending cursor // rest of a definition that the device refers to
	refLine int
	err     error
}

// NewReader reads up to and including the superblock's tag. It reads ahead of
// what it hands out.
//
// An error about the text is an [*Error]; one of r is wrapped.
func NewReader(r io.Reader, opt Options) (*Reader, error) {
	if opt.MaxShared == 0 {
		opt.MaxShared = DefaultMaxShared
	}
	x := &Reader{s: newScanner(r), opt: opt, shared: definitions{limit: opt.MaxShared}}
	t, err := x.tag()
	if err != nil {
		return nil, err
	}
	if t.end || string(t.name) != "superblock" {
		return nil, x.unexpected(t)
	}
	if err := x.readSuperblock(t); err != nil {
		return nil, err
	}
	x.where = inSuperblock
	return x, nil
}

// Superblock returns what the superblock says.
func (r *Reader) Superblock() Superblock { return r.rules.sb }

// NextDevice goes to the next device and returns it, or io.EOF behind the last
// one. Mappings of the device before that were not asked for are skipped, but
// not unchecked.
func (r *Reader) NextDevice() (Device, error) {
	for r.where == inDevice && r.err == nil {
		r.NextMapping() // its error is r.err, except io.EOF, which ends the loop
	}
	if r.err != nil {
		return Device{}, r.err
	}
	d, err := r.nextDevice()
	if err != nil {
		r.err = err
		return Device{}, err
	}
	return d, nil
}

func (r *Reader) nextDevice() (Device, error) {
	for {
		t, err := r.tag()
		switch {
		case err != nil:
			return Device{}, err
		case t.end: // of the superblock: no other element is open
			if string(t.name) != "superblock" {
				return Device{}, r.unexpected(t)
			}
			return Device{}, r.readRest()
		case string(t.name) == "def":
			if err := r.readDefinition(t); err != nil {
				return Device{}, err
			}
		case string(t.name) == "device":
			return r.readDevice(t)
		default:
			return Device{}, r.unexpected(t)
		}
	}
}

// readRest makes sure that nothing follows the superblock's end.
func (r *Reader) readRest() error {
	r.where = done
	t, err := r.s.next()
	if err == nil {
		return r.unexpected(t)
	}
	return err
}

// NextMapping returns the next mapping of the device, or io.EOF behind the last
// one. Mappings come as the text has them: two may be neighbours.
func (r *Reader) NextMapping() (Mapping, error) {
	if r.err != nil {
		return Mapping{}, r.err
	}
	if r.where != inDevice {
		return Mapping{}, io.EOF
	}
	m, err := r.nextMapping()
	switch {
	case err == nil:
		return m, nil
	case err == io.EOF:
		r.where = inSuperblock
	default:
		r.err = err
	}
	return Mapping{}, err
}

func (r *Reader) nextMapping() (Mapping, error) {
	for {
		if m, ok := r.pending.next(); ok {
			return m, r.check(r.rules.mapping(m).ofRef(), r.refLine)
		}
		t, err := r.tag()
		if err != nil {
			return Mapping{}, err
		}
		switch name := string(t.name); {
		case t.end && name == "device":
			if r.opt.AnyCount {
				return Mapping{}, io.EOF
			}
			if err := r.check(r.rules.endDevice(), t.line); err != nil {
				return Mapping{}, err
			}
			return Mapping{}, io.EOF
		case t.end:
			return Mapping{}, r.unexpected(t)
		case name == "ref":
			r.refLine = t.line
			if r.pending, err = r.readRef(t); err != nil {
				return Mapping{}, err
			}
		default:
			return r.readMapping(t, r.rules.mapping)
		}
	}
}

// tag returns the next tag, which must be there.
func (r *Reader) tag() (*tag, error) {
	t, err := r.s.next()
	if err == io.EOF {
		return nil, r.s.truncated(err, "the "+r.where.element())
	}
	return t, err
}

func (p place) element() string {
	return [...]string{"part before the superblock", "superblock", "device", "part behind the superblock"}[p]
}

// end reads the end of an element that holds nothing.
func (r *Reader) end(name string) error {
	t, err := r.tag()
	if err != nil {
		return err
	}
	if !t.end || string(t.name) != name {
		return r.unexpected(t)
	}
	return nil
}

func (r *Reader) unexpected(t *tag) error {
	slash := ""
	if t.end {
		slash = "/"
	}
	return &Error{Line: t.line, Why: fmt.Sprintf("<%s%.40s> cannot be here, in the %s", slash, t.name, r.where.element())}
}

// check gives an error its line.
func (r *Reader) check(e *Error, line int) error {
	if e == nil {
		return nil
	}
	e.Line = line
	return e
}
