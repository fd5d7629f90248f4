package whiteout

import (
	"fmt"
	"strconv"
	"strings"
)

// The xattrs that hold an [OverrideStat].
const (
	// OverrideStatContainers is written with xattr_permissions=2, and by
	// containers/storage with force_mask.
	OverrideStatContainers = "user.containers.override_stat"
	// OverrideStatUser is the name that xattr_permissions=2 had before.
	OverrideStatUser = "user.fuseoverlayfs.override_stat"
	// OverrideStatSecurity is written with xattr_permissions=1.
	OverrideStatSecurity = "security.fuseoverlayfs.override_stat"
)

// File types of mode_t, as in sys/stat.h.
const (
	typeMask    = 0o170000
	typeSocket  = 0o140000
	typeSymlink = 0o120000
	typeRegular = 0o100000
	typeBlock   = 0o060000
	typeDir     = 0o040000
	typeChar    = 0o020000
	typePipe    = 0o010000
	modeMask    = 0o7777
)

// An OverrideStat holds the attributes that a file is to be shown with, where
// the user who stores it may not set them: "0:0:755:dir". Values written by
// fuse-overlayfs 1.x end after the mode.
type OverrideStat struct {
	UID, GID uint32
	Mode     uint32 // permission, suid, sgid and sticky bits only
	// Type has the S_IFMT bits, or 0 where the value tells none: the file is
	// of the type it has.
	Type         uint32
	Major, Minor uint32 // of a device, else 0
}

// overrideTypes names the types that have no device number.
var overrideTypes = map[string]uint32{
	"dir":     typeDir,
	"file":    typeRegular,
	"symlink": typeSymlink,
	"pipe":    typePipe,
	"socket":  typeSocket,
}

// ParseOverrideStat reads a value "UID:GID:MODE" or "UID:GID:MODE:TYPE", the
// mode octal, the type dir, file, symlink, pipe, socket, block-MAJOR-MINOR or
// char-MAJOR-MINOR; fuse-overlayfs 2 writes devices as blockMAJOR:MINOR.
//
// Ids may be negative, since the C line wrote them with %d: they stand for the
// same 32 bits. Type bits that a mode has are dropped; the C line wrote them at
// times and the fourth field, or the file itself, knows better. One final NUL
// is ignored.
func ParseOverrideStat(value []byte) (OverrideStat, error) {
	bad := func(reason string, args ...any) (OverrideStat, error) {
		return OverrideStat{}, malformed("override_stat", value, reason, args...)
	}
	fields := strings.SplitN(strings.TrimSuffix(string(value), "\x00"), ":", 4)
	if len(fields) < 3 {
		return bad("%d fields, want uid:gid:mode or uid:gid:mode:type", len(fields))
	}
	var s OverrideStat
	var ok [3]bool
	s.UID, ok[0] = parseID(fields[0])
	s.GID, ok[1] = parseID(fields[1])
	if !ok[0] || !ok[1] {
		return bad("no owner and group of 32 bits")
	}
	mode, err := strconv.ParseUint(fields[2], 8, 32)
	if err != nil || mode&^(typeMask|modeMask) != 0 {
		return bad("no octal mode")
	}
	s.Mode = uint32(mode) & modeMask
	if len(fields) == 4 {
		if !s.parseType(fields[3]) {
			return bad("unknown file type %q", fields[3])
		}
	}
	return s, nil
}

func parseID(field string) (uint32, bool) {
	if n, err := strconv.ParseUint(field, 10, 32); err == nil {
		return uint32(n), true
	}
	if !strings.HasPrefix(field, "-") {
		return 0, false
	}
	n, err := strconv.ParseInt(field, 10, 32)
	return uint32(n), err == nil
}

func (s *OverrideStat) parseType(field string) bool {
	if t, ok := overrideTypes[field]; ok {
		s.Type = t
		return true
	}
	numbers, block := strings.CutPrefix(field, "block")
	if s.Type = typeBlock; !block {
		var char bool
		if numbers, char = strings.CutPrefix(field, "char"); !char {
			return false
		}
		s.Type = typeChar
	}
	major, minor, colon := strings.Cut(numbers, ":")
	if !colon {
		if numbers, dash := strings.CutPrefix(numbers, "-"); dash {
			major, minor, _ = strings.Cut(numbers, "-")
		}
	}
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	s.Major, s.Minor = uint32(a), uint32(b)
	return err1 == nil && err2 == nil
}

// Encode returns the value to store. A Type that has no name is left out.
func (s OverrideStat) Encode() []byte {
	value := fmt.Appendf(nil, "%d:%d:%o", s.UID, s.GID, s.Mode&modeMask)
	switch s.Type {
	case typeBlock:
		return fmt.Appendf(value, ":block-%d-%d", s.Major, s.Minor)
	case typeChar:
		return fmt.Appendf(value, ":char-%d-%d", s.Major, s.Minor)
	}
	for name, t := range overrideTypes {
		if t == s.Type {
			return append(append(value, ':'), name...)
		}
	}
	return value
}
