package whiteout

import (
	"archive/tar"
	"path"
	"strings"
	"time"
)

// WhiteoutHeader returns the entry of an OCI layer that deletes the file at
// path, relative to the root of the layer. It refuses the root, paths with
// "..", and what [AufsWhiteoutName] refuses.
func WhiteoutHeader(name string, mtime time.Time) (*tar.Header, error) {
	clean, err := cleanTarPath(name)
	if err != nil {
		return nil, err
	}
	dir, base := path.Split(clean)
	whiteout, err := AufsWhiteoutName(base)
	if err != nil {
		return nil, err
	}
	return markHeader(dir+whiteout, mtime), nil
}

// OpaqueHeader returns the entry of an OCI layer that hides all that lower
// layers have in the directory dir, "." for the root. It belongs behind the
// entry of dir itself and before those of its children.
func OpaqueHeader(dir string, mtime time.Time) (*tar.Header, error) {
	clean, err := cleanTarPath(dir)
	if err != nil {
		return nil, err
	}
	return markHeader(path.Join(clean, AufsOpaque), mtime), nil
}

// markHeader is an empty regular file of root that nobody can read, as the
// whiteouts of aufs are. containerd sets the time to 0.
func markHeader(name string, mtime time.Time) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0, ModTime: mtime}
}

// ParseTar tells what an entry of an OCI layer means.
//
// The path is clean, relative to the root of the layer, and "." for the root:
// of the deleted file for a Whiteout, of the directory for an OpaqueMarker, of
// the entry itself for NotMark and Reserved. Leading slashes and "./" are what
// several builders write; they are dropped.
//
// It refuses, as [ErrMalformed], paths with a ".." or a NUL, names that would
// delete "." or "..", marks that are no files, and entries below a mark. Hard
// links pass for marks, since aufs links all of its whiteouts together.
func ParseTar(h *tar.Header) (mark Mark, name string, err error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return NotMark, "", nil // no file; its name means nothing
	}
	clean, err := cleanTarPath(h.Name)
	if err != nil {
		return Invalid, "", err
	}
	dir, base := path.Split(clean)
	if belowReserved(dir) {
		return Reserved, clean, nil
	}
	mark, target := ParseAufsName(base)
	if mark == Whiteout || mark == OpaqueMarker {
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeLink:
		default:
			return Invalid, "", malformed("layer entry", []byte(h.Name), "a %v of type %q is no file", mark, h.Typeflag)
		}
	}
	switch mark {
	case Whiteout:
		return mark, dir + target, nil
	case OpaqueMarker:
		return mark, path.Clean(dir), nil
	case Invalid:
		return mark, "", malformed("layer entry", []byte(h.Name), `it would delete ".", ".." or nothing`)
	}
	return mark, clean, nil
}

// belowReserved reports whether a directory on the way belongs to aufs, as the
// hard links kept in [AufsPlinkDir] do.
func belowReserved(dir string) bool {
	for c := range strings.SplitSeq(dir, "/") {
		if mark, _ := ParseAufsName(c); mark == Reserved {
			return true
		}
	}
	return false
}

// cleanTarPath returns a path without leading slashes, empty and "."
// components; "." for the root. It refuses "..", NUL, and directories that are
// marks: what lies below a deleted name is no part of a layer.
func cleanTarPath(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", malformed("layer entry", []byte(name), "NUL byte")
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	for c := range strings.SplitSeq(name, "/") {
		if c == ".." {
			return "", malformed("layer entry", []byte(name), `".." in the path`)
		}
	}
	if clean == "" {
		return ".", nil
	}
	dir, _ := path.Split(clean)
	for c := range strings.SplitSeq(dir, "/") {
		if mark, _ := ParseAufsName(c); mark != NotMark && mark != Reserved {
			return "", malformed("layer entry", []byte(name), "it lies below a %v", mark)
		}
	}
	return clean, nil
}
