package thinxml

import (
	"errors"
	"fmt"
	"math"
	"unicode"
	"unicode/utf8"
)

// ErrMalformed is wrapped by every error that is about the text, or about what
// a [Writer] was given, and not about reading or writing it.
var ErrMalformed = errors.New("not valid thin metadata")

// An Error says what is wrong with the text, and where.
type Error struct {
	Line    int    // counted from 1; 0 for what a Writer was given
	Element string // as in the text, "" outside of any
	Attr    string // the attribute at fault, "" if it is none
	Why     string

	cause error // nil, or io.ErrUnexpectedEOF
}

func (e *Error) Error() string {
	s := "thin metadata"
	if e.Line > 0 {
		s += fmt.Sprintf(", line %d", e.Line)
	}
	if e.Element != "" {
		s += ", " + e.Element
	}
	if e.Attr != "" {
		s += ", attribute " + e.Attr
	}
	return s + ": " + e.Why
}

// Unwrap returns [ErrMalformed], and io.ErrUnexpectedEOF where the text ends
// too early.
func (e *Error) Unwrap() []error {
	if e.cause != nil {
		return []error{ErrMalformed, e.cause}
	}
	return []error{ErrMalformed}
}

// What the on-disk format of dm-thin has room for
// (drivers/md/dm-thin-metadata.c): a mapping packs the data block and its time
// into 40 + 24 bits, and device ids have 24 bits.
const (
	MaxDataBlocks = 1 << 40
	MaxDeviceID   = 1<<24 - 1
	MaxTime       = 1<<24 - 1
)

const (
	sectorSize   = 512     // unit of DataBlockSize, in bytes
	maxBlockSize = 1 << 21 // sectors: 1 GiB, the kernel's limit
	maxUUID      = 128     // bytes
	newest       = 2       // version of the metadata's format
)

// NeedsCheck is the bit of [Superblock].Flags that says that the metadata must
// be checked before the pool may be used.
const NeedsCheck = 1

// A Superblock says what holds for the whole pool.
type Superblock struct {
	UUID          string // any text of at most 128 bytes; usually empty
	Time          uint32 // counts snapshots
	Transaction   uint64 // the administrator's counter
	Flags         uint32
	Version       uint32 // of the metadata's format; 0 if the text has none
	DataBlockSize uint32 // in sectors of 512 bytes; the kernel wants multiples of 128
	NrDataBlocks  uint64
}

// A Device is a thin volume or a snapshot of one: dm-thin makes no difference.
type Device struct {
	ID           uint32
	MappedBlocks uint64
	Transaction  uint64 // of the pool when the device was made
	CreationTime uint32 // Superblock.Time when the device was made
	SnapTime     uint32 // the same of its latest snapshot
}

// A Mapping says that the Length blocks from Origin of a device are the blocks
// from Data of the pool.
type Mapping struct {
	Origin, Data, Length uint64
	Time                 uint32 // Superblock.Time when it was made; shared if SnapTime is later
}

// joins tells whether n continues m, so that one range can say both.
func (m Mapping) joins(n Mapping) bool {
	return m.Time == n.Time && m.Origin+m.Length == n.Origin && m.Data+m.Length == n.Data
}

// rules keeps what the invariants of the package comment need to know about
// the text so far. Its methods are the same for both directions; the errors
// that they return lack the line.
type rules struct {
	sb      Superblock
	dev     Device
	devices uint64 // seen so far
	mapped  uint64 // blocks of dev
	free    uint64 // first origin block after the mappings of dev
}

func (r *rules) superblock(sb Superblock) *Error {
	bad := func(attr, format string, args ...any) *Error {
		return &Error{Element: "superblock", Attr: attr, Why: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(sb.UUID) > maxUUID:
		return bad("uuid", "%d bytes are too long", len(sb.UUID))
	case !printable(sb.UUID):
		return bad("uuid", "%q is no printable text", sb.UUID)
	case sb.Version > newest:
		return bad("version", "%d is newer than this program knows", sb.Version)
	case sb.DataBlockSize == 0 || sb.DataBlockSize > maxBlockSize:
		return bad("data_block_size", "%d sectors, and not 1 to %d", sb.DataBlockSize, maxBlockSize)
	case sb.NrDataBlocks > MaxDataBlocks:
		return bad("nr_data_blocks", "%d, and not at most %d", sb.NrDataBlocks, uint64(MaxDataBlocks))
	case sb.NrDataBlocks > maxBlocks(sb):
		return bad("nr_data_blocks", "%d blocks of %d sectors are more than 8 EiB", sb.NrDataBlocks, sb.DataBlockSize)
	}
	r.sb = sb
	return nil
}

// maxBlocks is how many blocks have positions that fit an int64 in bytes.
func maxBlocks(sb Superblock) uint64 {
	return math.MaxInt64 / (sectorSize * uint64(sb.DataBlockSize))
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

func (r *rules) device(d Device) *Error {
	why := ""
	switch {
	case d.ID > MaxDeviceID:
		why = fmt.Sprintf("%d does not fit 24 bits", d.ID)
	case r.devices > 0 && d.ID == r.dev.ID:
		why = fmt.Sprintf("a second device %d", d.ID)
	case r.devices > 0 && d.ID < r.dev.ID:
		why = fmt.Sprintf("device %d comes after %d", d.ID, r.dev.ID)
	default:
		r.dev, r.mapped, r.free = d, 0, 0
		r.devices++
		return nil
	}
	return &Error{Element: "device", Attr: "dev_id", Why: why}
}

// block checks what a mapping must satisfy on its own.
func (r *rules) block(m Mapping) *Error {
	most := maxBlocks(r.sb)
	switch {
	case m.Length == 0:
		return badRange("length", "an empty range")
	case m.Time > MaxTime:
		return badRange("time", "%d does not fit 24 bits", m.Time)
	case m.Data >= r.sb.NrDataBlocks:
		return badRange("data_begin", "block %d of a pool with %d", m.Data, r.sb.NrDataBlocks)
	case m.Length > r.sb.NrDataBlocks-m.Data:
		return badRange("length", "%d blocks from %d reach beyond the %d of the pool", m.Length, m.Data, r.sb.NrDataBlocks)
	case m.Origin >= most || m.Length > most-m.Origin:
		return badRange("origin_begin", "%d blocks from %d reach beyond 8 EiB", m.Length, m.Origin)
	}
	return nil
}

// mapping takes one more mapping of the device.
func (r *rules) mapping(m Mapping) *Error {
	if err := r.block(m); err != nil {
		return err
	}
	if m.Origin < r.free {
		return badRange("origin_begin", "block %d of device %d comes after block %d", m.Origin, r.dev.ID, r.free-1)
	}
	r.free = m.Origin + m.Length
	r.mapped += m.Length
	return nil
}

func badRange(attr, format string, args ...any) *Error {
	return &Error{Element: "range_mapping", Attr: attr, Why: fmt.Sprintf(format, args...)}
}

// ofSingle says the error of a range in the words of a single_mapping.
func (e *Error) ofSingle() *Error {
	if e == nil {
		return nil
	}
	e.Element = "single_mapping"
	switch e.Attr {
	case "origin_begin":
		e.Attr = "origin_block"
	case "data_begin", "length":
		e.Attr = "data_block"
	}
	return e
}

// endDevice tells whether all of the device was seen.
func (r *rules) endDevice() *Error {
	if r.mapped == r.dev.MappedBlocks {
		return nil
	}
	return &Error{Element: "device", Attr: "mapped_blocks",
		Why: fmt.Sprintf("device %d should map %d blocks and maps %d; was it dumped without its mappings?",
			r.dev.ID, r.dev.MappedBlocks, r.mapped)}
}
