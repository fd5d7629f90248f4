package whiteout

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Flags of a [FileHandle] (OVL_FH_FLAG_* of the kernel).
const (
	FlagBigEndian = 1 << 0 // FID is in big-endian order, else little-endian
	FlagAnyEndian = 1 << 1 // FID can be read in either order
	FlagUpper     = 1 << 2 // the inode lies in the upper layer
	flagsKnown    = FlagBigEndian | FlagAnyEndian | FlagUpper
)

// Layout of struct ovl_fb: version, magic, len, flags, type, uuid, fid.
const (
	fhVersion   = 0
	fhMagic     = 0xfb
	fhHeaderLen = 21
	fhMaxLen    = 255 // len is one byte
)

// flagCPUEndian is the byte order that file handles have on this machine.
var flagCPUEndian = func() uint8 {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return FlagBigEndian
	}
	return 0
}()

// A FileHandle identifies an inode over renames and remounts: the value of
// [Prefix.Origin] and [Prefix.Upper], and in hexadecimal the name of an entry
// in the index directory.
type FileHandle struct {
	UUID  [16]byte // of the inode's filesystem; zero with mount option uuid=off
	Type  uint8    // handle_type of name_to_handle_at(2)
	Flags uint8    // Flag* bits
	FID   []byte   // f_handle of name_to_handle_at(2)
}

// NewFileHandle makes the handle that the kernel would write on this machine
// (ovl_encode_real_fh) from what name_to_handle_at(2) returned. It fails for a
// handle type that the format has no room for, or 255 (FILEID_INVALID), and
// for a FID that is too long.
func NewFileHandle(uuid [16]byte, handleType int32, fid []byte, upper bool) (FileHandle, error) {
	if handleType < 0 || handleType >= 255 {
		return FileHandle{}, fmt.Errorf("file handle: type %#x does not fit, want 0 to 254", handleType)
	}
	h := FileHandle{UUID: uuid, Type: uint8(handleType), Flags: flagCPUEndian, FID: fid}
	if upper {
		h.Flags |= FlagUpper
	}
	return h, h.check()
}

// ParseFileHandle reads the value of [Prefix.Origin] or [Prefix.Upper].
//
// As in the kernel (ovl_get_fh, ovl_check_fb_len) an empty value, a later
// version, unknown flags and the byte order of another machine are
// [ErrOriginUnknown]. Too short a value and a wrong magic are [ErrMalformed],
// which the kernel logs and then treats like an unknown origin too. Bytes
// after the handle's own length are ignored. Only a length field smaller than
// the header is refused here and not there.
func ParseFileHandle(value []byte) (FileHandle, error) {
	return parseFileHandle(value, flagCPUEndian)
}

func parseFileHandle(value []byte, cpuEndian uint8) (FileHandle, error) {
	if len(value) == 0 {
		return FileHandle{}, fmt.Errorf("file handle: empty: %w", ErrOriginUnknown)
	}
	bad := func(reason string, args ...any) (FileHandle, error) {
		return FileHandle{}, malformed("file handle", value, reason, args...)
	}
	if len(value) < fhHeaderLen {
		return bad("%d bytes, the header alone has %d", len(value), fhHeaderLen)
	}
	version, magic, length, flags := value[0], value[1], int(value[2]), value[3]
	switch {
	case length > len(value):
		return bad("length field %d, but %d bytes", length, len(value))
	case magic != fhMagic:
		return bad("magic %#x, want %#x", magic, fhMagic)
	case version > fhVersion:
		return FileHandle{}, fmt.Errorf("file handle: version %d, at most %d is known: %w",
			version, fhVersion, ErrOriginUnknown)
	case flags&^flagsKnown != 0:
		return FileHandle{}, fmt.Errorf("file handle: flags %#x have unknown bits: %w",
			flags, ErrOriginUnknown)
	case flags&FlagAnyEndian == 0 && flags&FlagBigEndian != cpuEndian:
		return FileHandle{}, fmt.Errorf("file handle: written by a machine with the other byte order: %w",
			ErrOriginUnknown)
	case length < fhHeaderLen:
		return bad("length field %d, the header alone has %d", length, fhHeaderLen)
	}
	h := FileHandle{Type: value[4], Flags: flags}
	copy(h.UUID[:], value[5:fhHeaderLen])
	if length > fhHeaderLen {
		h.FID = append([]byte(nil), value[fhHeaderLen:length]...)
	}
	return h, nil
}

func (h FileHandle) check() error {
	if n := fhHeaderLen + len(h.FID); n > fhMaxLen {
		return fmt.Errorf("file handle: %d bytes, %d at most", n, fhMaxLen)
	}
	return nil
}

// Encode returns the value to store, the flags as they are. It fails for a FID
// that is too long for the length field.
func (h FileHandle) Encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	value := make([]byte, fhHeaderLen, fhHeaderLen+len(h.FID))
	value[0] = fhVersion
	value[1] = fhMagic
	value[2] = byte(fhHeaderLen + len(h.FID))
	value[3] = h.Flags
	value[4] = h.Type
	copy(value[5:], h.UUID[:])
	return append(value, h.FID...), nil
}

// Upper reports whether the inode lies in the upper layer.
func (h FileHandle) Upper() bool { return h.Flags&FlagUpper != 0 }

// IndexName returns the name that the index directory has for the inode: the
// encoded handle in lower-case hexadecimal (ovl_get_index_name_fh). It fails
// where Encode does, and with [ErrNameTooLong] for a handle whose name would
// exceed 255 bytes, which the kernel cannot index either.
func (h FileHandle) IndexName() (string, error) {
	value, err := h.Encode()
	if err != nil {
		return "", err
	}
	name := hex.EncodeToString(value)
	if len(name) > nameMax {
		return "", fmt.Errorf("index name of %d bytes: %w", len(name), ErrNameTooLong)
	}
	return name, nil
}

// ParseIndexName reads the name of an entry in the index directory, with the
// errors of [ParseFileHandle]. Both cases of hexadecimal are read, as by the
// kernel (ovl_verify_index). A name for which [IsTempIndexName] holds is no
// index entry.
func ParseIndexName(name string) (FileHandle, error) {
	value, err := hex.DecodeString(name)
	if err != nil {
		return FileHandle{}, malformed("index name", []byte(name), "not hexadecimal")
	}
	if len(value) < fhHeaderLen {
		return FileHandle{}, malformed("index name", []byte(name), "shorter than a file handle")
	}
	return ParseFileHandle(value)
}

// IsTempIndexName reports whether an entry of the index directory is a
// temporary of the kernel: its name begins with "#". While a union is mounted
// these are half-made entries and the whiteout that all others are hard links
// to; in one that is not, they are leftovers.
func IsTempIndexName(name string) bool { return len(name) > 0 && name[0] == '#' }
