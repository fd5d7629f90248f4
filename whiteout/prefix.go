package whiteout

import "strings"

// XattrNameMax is the longest name of an extended attribute in bytes
// (XATTR_NAME_MAX of linux/limits.h).
const XattrNameMax = 255

// A Prefix is the xattr namespace in which an overlay keeps its marks.
type Prefix string

const (
	// Trusted is the namespace that only CAP_SYS_ADMIN of the initial user
	// namespace can see.
	Trusted Prefix = "trusted.overlay."
	// User is what a mount with the option userxattr takes, as all mounts
	// without privileges do. Only regular files and directories can carry it.
	User Prefix = "user.overlay."
)

// The marks. Those whose comment names no type hold a single byte 'y'.

// Opaque names the mark of a directory, an [OpaqueMark].
func (p Prefix) Opaque() string { return string(p) + "opaque" }

// Redirect names the mark that holds a [Redirect].
func (p Prefix) Redirect() string { return string(p) + "redirect" }

// Metacopy names the mark of a file without data of its own, a [Metacopy].
func (p Prefix) Metacopy() string { return string(p) + "metacopy" }

// Origin names the mark that holds the [FileHandle] of the lower inode which
// an object was copied from. An empty value means copied up, from unknown.
func (p Prefix) Origin() string { return string(p) + "origin" }

// Impure names the mark of a directory in the upper layer that is not merged
// itself but holds copied objects, so that listing it must translate inode
// numbers.
func (p Prefix) Impure() string { return string(p) + "impure" }

// Nlink names the mark of an indexed file, a [Nlink].
func (p Prefix) Nlink() string { return string(p) + "nlink" }

// Upper names the mark of a directory in the index or work directory that
// holds the [FileHandle] of a directory in the upper layer.
func (p Prefix) Upper() string { return string(p) + "upper" }

// UUID names the mark of the upper root that holds the 16 bytes of the
// union's own filesystem UUID (mount option uuid=on and uuid=auto).
func (p Prefix) UUID() string { return string(p) + "uuid" }

// Protattr names the mark that holds the [Protattr] of a copied object.
func (p Prefix) Protattr() string { return string(p) + "protattr" }

// Whiteout names the mark that turns an empty regular file into a whiteout,
// whatever its value (ovl_path_check_xwhiteout_xattr, since 6.7).
//
// Looking up such a file finds a whiteout in any directory of any layer; only
// listing a directory trusts [OpaqueXattrWhiteouts] to say whether the files
// need to be asked at all.
func (p Prefix) Whiteout() string { return string(p) + "whiteout" }

// escape is what stands between the prefix and the name in the stored name
// of an xattr that users of a union see as prefix + name.
const escape = "overlay."

// escaped reports whether the xattr belongs to an overlay within this one.
//
// The kernel (ovl_is_escaped_xattr) compares all of "user.overlay.overlay.",
// but of "trusted.overlay.overlay." all except the last byte. Which names are
// hidden differs between the two by that one character, and so it does here.
func (p Prefix) escaped(xattr string) bool {
	want := string(p) + escape
	if p == Trusted {
		want = want[:len(want)-1]
	}
	return strings.HasPrefix(xattr, want)
}

// Private reports whether a stored xattr is a mark of this union, hidden from
// its users and not copied up. Escaped names, the marks of an overlay mounted
// within this one, are not private (ovl_is_private_xattr).
func (p Prefix) Private(xattr string) bool {
	return strings.HasPrefix(xattr, string(p)) && !p.escaped(xattr)
}

// Escape returns the name under which a union stores the xattr that its user
// calls xattr: "trusted.overlay.opaque" is kept as
// "trusted.overlay.overlay.opaque" (since 6.7), and all names outside of the
// prefix are kept as they are. It returns false for a name that becomes longer
// than [XattrNameMax]; the kernel answers EOPNOTSUPP (ovl_xattr_escape_name).
func (p Prefix) Escape(xattr string) (stored string, ok bool) {
	name, own := strings.CutPrefix(xattr, string(p))
	if !own {
		return xattr, true
	}
	stored = string(p) + escape + name
	return stored, len(stored) <= XattrNameMax
}

// Unescape returns the name by which users of a union know the stored xattr,
// and false for a mark that is hidden from them (ovl_listxattr).
//
// The kernel lists the few trusted names that only pass for escaped, such as
// "trusted.overlay.overlayfoo", with the first letters cut off, and then cannot
// find what it listed. They are hidden here.
func (p Prefix) Unescape(stored string) (xattr string, ok bool) {
	name, own := strings.CutPrefix(stored, string(p))
	if !own {
		return stored, true
	}
	name, escaped := strings.CutPrefix(name, escape)
	if !escaped {
		return "", false
	}
	return string(p) + name, true
}
