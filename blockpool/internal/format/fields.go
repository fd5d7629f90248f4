package format

import (
	"encoding/binary"
	"fmt"
)

// Fields is the packed form of the small structs of the catalogue: a version
// byte, then tagged values. A tag that a reader does not know is damage, since a
// pool that needs more than a reader knows has a feature that it refuses.
type Fields []byte

// NewFields starts a struct of that version.
func NewFields(version byte) Fields { return Fields{version} }

// Uint adds a number; zero is left out.
func (f *Fields) Uint(tag byte, v uint64) {
	if v == 0 {
		return
	}
	var b [binary.MaxVarintLen64]byte
	f.Bytes(tag, b[:binary.PutUvarint(b[:], v)])
}

// Bytes adds a value; a tag may come several times.
func (f *Fields) Bytes(tag byte, v []byte) {
	b := append(*f, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	*f = append(b, v...)
}

// String adds a value; an empty one is left out.
func (f *Fields) String(tag byte, v string) {
	if v != "" {
		f.Bytes(tag, []byte(v))
	}
}

// A Field is one value as it is read.
type Field struct {
	Tag byte
	raw []byte
}

// ParseFields calls visit with each field of a struct of that version.
func ParseFields(b []byte, version byte, visit func(Field) error) error {
	if len(b) == 0 {
		return fmt.Errorf("empty: %w", ErrDamaged)
	}
	if b[0] != version {
		return fmt.Errorf("version %d, not %d: %w", b[0], version, ErrDamaged)
	}
	for b = b[1:]; len(b) > 0; {
		tag := b[0]
		n, k := binary.Uvarint(b[1:])
		if k <= 0 || n > uint64(len(b)-1-k) {
			return fmt.Errorf("field %d goes past the end: %w", tag, ErrDamaged)
		}
		b = b[1+k:]
		if err := visit(Field{Tag: tag, raw: b[:n:n]}); err != nil {
			return fmt.Errorf("field %d: %w", tag, err)
		}
		b = b[n:]
	}
	return nil
}

// Unknown is what a visitor answers for a tag that it does not know.
func (f Field) Unknown() error { return fmt.Errorf("unknown: %w", ErrDamaged) }

// Bytes returns the value; it belongs to the buffer that is parsed.
func (f Field) Bytes() []byte { return f.raw }

// String returns the value as text.
func (f Field) String() string { return string(f.raw) }

// Uint stores a number in p.
func (f Field) Uint(p *uint64) error {
	v, n := binary.Uvarint(f.raw)
	if n <= 0 || n != len(f.raw) {
		return fmt.Errorf("not a number: %w", ErrDamaged)
	}
	*p = v
	return nil
}

// Int stores a number that is a size or time in p.
func (f Field) Int(p *int64) error {
	var v uint64
	if err := f.Uint(&v); err != nil {
		return err
	}
	if v > 1<<63-1 {
		return fmt.Errorf("%d is out of range: %w", v, ErrDamaged)
	}
	*p = int64(v)
	return nil
}

// Fixed fills p, whose length is the length that the value must have.
func (f Field) Fixed(p []byte) error {
	if len(f.raw) != len(p) {
		return fmt.Errorf("%d bytes, not %d: %w", len(f.raw), len(p), ErrDamaged)
	}
	copy(p, f.raw)
	return nil
}
