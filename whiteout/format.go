package whiteout

import (
	"fmt"
	"maps"
	"slices"
)

// A Format is a way to write marks into a layer.
type Format int

const (
	// Overlay is what kernel overlayfs writes for root.
	Overlay Format = iota
	// OverlayUser is what kernel overlayfs writes with the option userxattr.
	OverlayUser
	// OverlayXattr is Overlay without device nodes: whiteouts are files with
	// an xattr. The kernel reads it in lower layers.
	OverlayXattr
	// OverlayUserXattr is OverlayUser without device nodes.
	OverlayUserXattr
	// Aufs is what aufs writes into its branches.
	Aufs
	// OCI is how image layers write marks, in a tar archive or unpacked.
	OCI
	// FuseOverlayfs is what fuse-overlayfs may have written over the years,
	// a mixture of all of the above. It can be read only.
	FuseOverlayfs
)

var formatNames = [...]string{
	Overlay:          "overlay",
	OverlayUser:      "overlay-user",
	OverlayXattr:     "overlay-xattr",
	OverlayUserXattr: "overlay-user-xattr",
	Aufs:             "aufs",
	OCI:              "oci",
	FuseOverlayfs:    "fuse-overlayfs",
}

func (f Format) String() string {
	if f < 0 || int(f) >= len(formatNames) {
		return fmt.Sprintf("Format(%d)", int(f))
	}
	return formatNames[f]
}

// ParseFormat is the inverse of String.
func ParseFormat(name string) (Format, error) {
	if i := slices.Index(formatNames[:], name); i >= 0 {
		return Format(i), nil
	}
	return 0, fmt.Errorf("layer format %q is unknown, want one of %v", name, formatNames)
}

// Prefix returns the xattr namespace of the overlay formats, and false for
// the formats that keep no marks in xattrs.
func (f Format) Prefix() (Prefix, bool) {
	switch f {
	case Overlay, OverlayXattr:
		return Trusted, true
	case OverlayUser, OverlayUserXattr:
		return User, true
	}
	return "", false
}

// xattrWhiteouts reports whether the format deletes names by files with an
// xattr, in directories that announce it.
func (f Format) xattrWhiteouts() bool { return f == OverlayXattr || f == OverlayUserXattr }

// marksAreNames reports whether the format is one in which ".wh." begins the
// name of a mark.
func (f Format) marksAreNames() bool { return f == Aufs || f == OCI || f == FuseOverlayfs }

// marksAreObjects reports whether the format is one in which the type or the
// xattrs of an object make it a mark.
func (f Format) marksAreObjects() bool { return f != Aufs && f != OCI }

// A Node is what a layer holds physically: an object with the attributes that
// a mark can be made of.
type Node struct {
	Name   string // in its directory, "" for the directory itself
	Type   uint32 // S_IFMT bits of its mode
	Rdev   uint64 // of a device
	Size   int64  // of a regular file in bytes
	Xattrs map[string][]byte
}

func (n Node) isWhiteoutDevice() bool { return n.Type == typeChar && n.Rdev == 0 }

// isXattrWhiteout is ovl_path_check_xwhiteout_xattr.
func (n Node) isXattrWhiteout(p Prefix) bool {
	_, marked := n.Xattrs[p.Whiteout()]
	return marked && n.Type == typeRegular && n.Size == 0
}

// Equal reports whether two nodes are the same.
func (n Node) Equal(o Node) bool {
	return n.Name == o.Name && n.Type == o.Type && n.Rdev == o.Rdev && n.Size == o.Size &&
		maps.EqualFunc(n.Xattrs, o.Xattrs, slices.Equal[[]byte])
}
