package whiteout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Kind tells what an [Entry] says.
type Kind int

const (
	// Plain is an object that users see.
	Plain Kind = iota
	// Deleted is a name that hides what lower layers have under it.
	Deleted
	// OpaqueDir is said of the directory itself: it hides all that lower
	// layers have in it.
	OpaqueDir
)

// An Entry is the meaning of a [Node], whatever the format.
type Entry struct {
	Name string // as users see it, "" for the directory itself
	Kind Kind
	Node Node // a Plain one as users see it: no marks left, xattrs unescaped

	// What only overlay formats can say of a Plain object.
	Redirect *Redirect
	Metacopy *Metacopy
	Protattr *Protattr
	// Bookkeeping holds marks that tell a union about inode numbers and link
	// counts and nothing about the tree, by their names without the prefix.
	// Formats that have no place for them lose nothing that users stored.
	Bookkeeping map[string][]byte
}

// bookkeeping names the marks that Entry.Bookkeeping takes.
var bookkeeping = []string{"origin", "impure", "nlink", "upper", "uuid"}

// Decode returns the meaning of a node: no entry for the format's own
// bookkeeping, two for a directory that is opaque, one else. What the xattrs of
// a directory say is returned when the node is the directory itself (its Name
// is ""), not for a node that is its name in the parent.
//
// It fails, as [ErrMalformed], for marks that cannot be read, and for marks of
// an overlay that this package does not know, since a layer may not be shown
// without what they say.
func (f Format) Decode(n Node) ([]Entry, error) {
	if f.marksAreNames() && n.Name != "" {
		mark, target := ParseAufsName(n.Name)
		switch mark {
		case Whiteout:
			return []Entry{{Name: target, Kind: Deleted}}, nil
		case OpaqueMarker:
			return []Entry{{Kind: OpaqueDir}}, nil
		case Invalid:
			return nil, malformed("name", []byte(n.Name), `a whiteout of ".", ".." or nothing`)
		case Reserved:
			return nil, knownReserved(n.Name)
		}
	}
	if n.Name != "" && n.Type == typeDir {
		n.Xattrs = nil
	}
	switch f {
	case Aufs, OCI:
		return []Entry{{Name: n.Name, Kind: Plain, Node: n}}, nil
	case FuseOverlayfs:
		return decodeFuseOverlayfs(n)
	}
	p, ok := f.Prefix()
	if !ok {
		return nil, fmt.Errorf("decode %q: %v is no format", n.Name, f)
	}
	return decodeOverlay(p, n)
}

// knownReserved lets pass what aufs keeps in the root of a branch, and refuses
// names that are left from something interrupted.
func knownReserved(name string) error {
	switch name {
	case AufsBase, AufsPlinkDir, AufsOrphDir:
		return nil
	}
	return malformed("name", []byte(name), "reserved by aufs and of unknown purpose; mount and flush the branch with aufs")
}

func decodeOverlay(p Prefix, n Node) ([]Entry, error) {
	if n.Name != "" && (n.isWhiteoutDevice() || n.isXattrWhiteout(p)) {
		return []Entry{{Name: n.Name, Kind: Deleted}}, nil
	}
	return decodeXattrs(n, func(e *Entry, attr string, value []byte) (opaque bool, err error) {
		if p.Private(attr) {
			return e.takeMark(p, attr, value)
		}
		if shown, ok := p.Unescape(attr); ok {
			setXattr(&e.Node.Xattrs, shown, value)
		}
		return false, nil
	})
}

// decodeFuseOverlayfs reads what is left when the name was no mark. The xattrs
// with stored owners and modes stay as they are: every format can keep them.
func decodeFuseOverlayfs(n Node) ([]Entry, error) {
	if n.Name != "" && n.isWhiteoutDevice() {
		return []Entry{{Name: n.Name, Kind: Deleted}}, nil
	}
	opaque := fuseOverlayfsOpaque(n.Xattrs)
	return decodeXattrs(n, func(e *Entry, attr string, value []byte) (bool, error) {
		switch {
		case slices.Contains(FuseOverlayfsOpaqueXattrs[:], attr):
			return opaque == attr, nil
		case attr == FuseOverlayfsOrigin:
			return false, nil // a path; the overlay formats keep a file handle
		case Trusted.Private(attr):
			return e.takeMark(Trusted, attr, value)
		case User.Private(attr):
			return e.takeMark(User, attr, value)
		}
		setXattr(&e.Node.Xattrs, attr, value)
		return false, nil
	})
}

// fuseOverlayfsOpaque returns the xattr that makes a directory opaque, "" if
// it is not. The first that is there decides, even when it says no.
func fuseOverlayfsOpaque(xattrs map[string][]byte) string {
	for _, attr := range FuseOverlayfsOpaqueXattrs {
		if value, ok := xattrs[attr]; ok {
			if FuseOverlayfsOpaqueValue(value) {
				return attr
			}
			return ""
		}
	}
	return ""
}

// decodeXattrs makes the entries of a node that is no whiteout, giving each
// xattr to take in the order of their names: the metacopy mark comes before
// the redirect that depends on it.
func decodeXattrs(n Node, take func(*Entry, string, []byte) (opaque bool, err error)) ([]Entry, error) {
	e := Entry{Name: n.Name, Kind: Plain, Node: n}
	e.Node.Xattrs = nil
	var entries []Entry
	for _, attr := range slices.Sorted(maps.Keys(n.Xattrs)) {
		opaque, err := take(&e, attr, n.Xattrs[attr])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", n.Name, err)
		}
		if opaque {
			entries = append(entries, Entry{Kind: OpaqueDir})
		}
	}
	if len(entries) > 0 {
		e.Redirect = nil // it leads nowhere when nothing below is looked at
	}
	return append(entries, e), nil
}

// takeMark puts a private xattr where it belongs, and tells whether it makes
// the directory opaque.
func (e *Entry) takeMark(p Prefix, attr string, value []byte) (opaque bool, err error) {
	mark := strings.TrimPrefix(attr, string(p))
	switch {
	case attr == p.Opaque():
		// Like the kernel: what is neither 'y' nor 'x' says nothing.
		m, _ := ParseOpaque(value)
		return e.Node.Type == typeDir && m == OpaqueYes, nil
	case attr == p.Redirect():
		if e.Node.Type != typeDir && e.Metacopy == nil {
			return false, nil // left from a metacopy that has its data now
		}
		r, err := ParseRedirect(value)
		e.Redirect = &r
		return false, err
	case attr == p.Metacopy():
		if e.Node.Type != typeRegular {
			return false, nil // the kernel asks no others
		}
		m, err := ParseMetacopy(value)
		e.Metacopy = &m
		return false, err
	case attr == p.Protattr():
		a, err := ParseProtattr(value)
		e.Protattr = &a
		return false, err
	case attr == p.Whiteout():
		return false, nil // no whiteout, or decodeOverlay had taken it
	case slices.Contains(bookkeeping, mark):
		setXattr(&e.Bookkeeping, mark, value)
		return false, nil
	}
	return false, malformed("xattr", []byte(attr), "an overlay mark of unknown meaning")
}

func setXattr(m *map[string][]byte, name string, value []byte) {
	if *m == nil {
		*m = map[string][]byte{}
	}
	(*m)[name] = value
}
