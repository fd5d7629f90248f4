package whiteout

import (
	"fmt"
	"strings"
)

// nameMax is the longest name of a directory entry in bytes.
const nameMax = 255

// Names of aufs (linux/aufs_type.h), of which OCI layers took the first two
// over.
const (
	// AufsPrefix begins the name of a whiteout: ".wh.f" deletes "f".
	AufsPrefix = ".wh."
	// AufsOpaque is the name of the file that makes its directory opaque.
	AufsOpaque = ".wh..wh..opq"
	// AufsReserved begins all names that aufs keeps for itself.
	AufsReserved = ".wh..wh."
	// AufsBase is the file in the root of a branch that all whiteouts of the
	// branch are hard links to.
	AufsBase = ".wh..wh.aufs"
	// AufsPlinkDir is the directory in the root of a branch that keeps the
	// hard links whose other names still lie in lower branches.
	AufsPlinkDir = ".wh..wh.plnk"
	// AufsOrphDir is the directory in the root of a branch that keeps
	// removed files which are still open.
	AufsOrphDir = ".wh..wh.orph"
)

// AufsNameMax is the longest name in bytes that aufs itself lets a file have:
// it keeps room for two prefixes, a dot and four digits.
const AufsNameMax = 242

// AufsWhiteoutNameMax is the longest name in bytes that a file of the form
// ".wh.NAME" can delete.
const AufsWhiteoutNameMax = nameMax - len(AufsPrefix)

// A Mark tells what the name of a file means in the aufs and OCI formats.
type Mark int

const (
	// NotMark is an ordinary name.
	NotMark Mark = iota
	// Whiteout deletes the name that follows the prefix.
	Whiteout
	// OpaqueMarker makes the directory that holds it opaque.
	OpaqueMarker
	// Reserved belongs to the bookkeeping of aufs and says nothing of the
	// tree: never shown, never copied to another layer.
	Reserved
	// Invalid would delete "", "." or "..". A layer that holds one is broken
	// or hostile.
	Invalid
)

func (m Mark) String() string {
	switch m {
	case NotMark:
		return "no mark"
	case Whiteout:
		return "whiteout"
	case OpaqueMarker:
		return "opaque marker"
	case Reserved:
		return "reserved name"
	case Invalid:
		return "invalid whiteout"
	}
	return "unknown mark"
}

// ParseAufsName tells what the name of a directory entry means, and for a
// Whiteout which name it deletes. Every name has exactly one meaning: one that
// begins with two prefixes is Reserved, so a file ".wh.f" cannot be deleted in
// this format, as it cannot exist in it.
func ParseAufsName(name string) (mark Mark, target string) {
	target, marked := strings.CutPrefix(name, AufsPrefix)
	switch {
	case !marked:
		return NotMark, ""
	case name == AufsOpaque:
		return OpaqueMarker, ""
	case strings.HasPrefix(name, AufsReserved):
		return Reserved, ""
	case target == "" || target == "." || target == "..":
		return Invalid, ""
	}
	return Whiteout, target
}

// AufsWhiteoutName returns the name of the file that deletes name. It fails
// with [ErrNameTooLong] past [AufsWhiteoutNameMax], and with
// [ErrNotRepresentable] for what no file of this format can be called.
func AufsWhiteoutName(name string) (string, error) {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return "", fmt.Errorf("whiteout of %q: not the name of a file: %w", name, ErrNotRepresentable)
	case strings.HasPrefix(name, AufsPrefix):
		return "", fmt.Errorf("whiteout of %q: names that begin with %q are marks themselves: %w",
			name, AufsPrefix, ErrNotRepresentable)
	case len(name) > AufsWhiteoutNameMax:
		return "", fmt.Errorf("whiteout of %q: %d bytes, %d at most behind %q: %w",
			name, len(name), AufsWhiteoutNameMax, AufsPrefix, ErrNameTooLong)
	}
	return AufsPrefix + name, nil
}
