package whiteout

import "strings"

// Marks of fuse-overlayfs besides those of overlay and aufs.
const (
	fuseOverlayfsPrefix         = "user.fuseoverlayfs."
	fuseOverlayfsSecurityPrefix = "security.fuseoverlayfs."

	// FuseOverlayfsOpaque marks an opaque directory like [Prefix.Opaque]; the
	// C line wrote it where it could not set trusted.* xattrs.
	FuseOverlayfsOpaque = fuseOverlayfsPrefix + "opaque"
	// FuseOverlayfsOrigin holds the path, relative to the layers and ended by
	// a NUL, that an object was copied from.
	FuseOverlayfsOrigin = fuseOverlayfsPrefix + "origin"
)

// FuseOverlayfsOpaqueXattrs lists the xattrs in the order in which
// fuse-overlayfs asks for them. A directory is opaque when the first that is
// there begins with 'y' ([FuseOverlayfsOpaqueValue]), and when none is there
// but a file called [AufsOpaque].
var FuseOverlayfsOpaqueXattrs = [...]string{
	string(Trusted) + "opaque",
	string(User) + "opaque",
	FuseOverlayfsOpaque,
}

// FuseOverlayfsOpaqueValue reads an opaque xattr as fuse-overlayfs does: any
// value of up to 16 bytes that begins with 'y' is a yes.
func FuseOverlayfsOpaqueValue(value []byte) bool {
	return len(value) > 0 && len(value) <= 16 && value[0] == 'y'
}

// FuseOverlayfsPrivate reports whether fuse-overlayfs keeps the xattr for
// itself, in whichever of its modes.
func FuseOverlayfsPrivate(xattr string) bool {
	return strings.HasPrefix(xattr, fuseOverlayfsPrefix) ||
		strings.HasPrefix(xattr, fuseOverlayfsSecurityPrefix) ||
		strings.HasPrefix(xattr, string(Trusted)) ||
		strings.HasPrefix(xattr, string(User)) ||
		xattr == OverrideStatContainers
}

// overridePrefix begins the stored name of an xattr that the mode
// xattr_permissions=2 keeps where an ordinary user may write it.
const overridePrefix = "user.containers.override_"

// EscapeOverride returns the name under which xattr_permissions=2 stores the
// xattr that its user calls xattr: those of the namespace security., and the
// private ones, move below user.containers. It returns false for a name that
// becomes too long.
//
// fuse-overlayfs itself stores names that begin with the prefix as they are.
// Whoever owns a file can thereby give it a security.capability, so here they
// get the prefix once more.
func EscapeOverride(xattr string) (stored string, ok bool) {
	if !overridden(xattr) {
		return xattr, true
	}
	stored = overridePrefix + xattr
	return stored, len(stored) <= XattrNameMax
}

// UnescapeOverride returns the name by which users know the stored xattr, and
// false for what is hidden from them, the [OverrideStat] included.
func UnescapeOverride(stored string) (xattr string, ok bool) {
	name, prefixed := strings.CutPrefix(stored, overridePrefix)
	switch {
	case prefixed && overridden(name):
		return name, true
	case prefixed && stored != OverrideStatContainers:
		return stored, true // an older layer's own
	}
	return stored, !overridden(stored)
}

// overridden reports whether users' xattrs of that name are stored elsewhere.
func overridden(xattr string) bool {
	return strings.HasPrefix(xattr, "security.") ||
		strings.HasPrefix(xattr, overridePrefix) ||
		FuseOverlayfsPrivate(xattr)
}
