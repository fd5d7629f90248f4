package whiteout

import (
	"fmt"
	"strings"
)

// Encode returns the nodes that say the entry in this format. A node with an
// empty Name tells which xattrs the directory itself is to have.
//
// It fails with [ErrNotRepresentable], or [ErrNameTooLong], where the format
// has no words for it. Bookkeeping is left out where there is no place for it.
func (f Format) Encode(e Entry) ([]Node, error) {
	var nodes []Node
	var err error
	p, overlay := f.Prefix()
	switch {
	case f == FuseOverlayfs:
		err = fmt.Errorf("lamina reads this format only; write overlay or overlay-user: %w", ErrNotRepresentable)
	case !overlay && f != Aufs && f != OCI:
		err = fmt.Errorf("no such format: %w", ErrNotRepresentable)
	case e.Kind == Plain && overlay:
		nodes, err = encodeOverlayPlain(p, e)
	case e.Kind == Plain:
		nodes, err = encodeAufsPlain(e)
	case overlay:
		nodes, err = f.encodeOverlayMark(p, e)
	default:
		nodes, err = encodeAufsMark(e)
	}
	if err != nil {
		return nil, fmt.Errorf("write %q as %v: %w", e.Name, f, err)
	}
	return nodes, nil
}

func (f Format) encodeOverlayMark(p Prefix, e Entry) ([]Node, error) {
	if e.Kind == OpaqueDir {
		return []Node{selfNode(p.Opaque(), OpaqueYes.Encode())}, nil
	}
	if f.xattrWhiteouts() {
		return []Node{
			selfNode(p.Opaque(), OpaqueXattrWhiteouts.Encode()),
			{Name: e.Name, Type: typeRegular, Xattrs: map[string][]byte{p.Whiteout(): {}}},
		}, nil
	}
	return []Node{{Name: e.Name, Type: typeChar}}, nil
}

func selfNode(attr string, value []byte) Node {
	return Node{Type: typeDir, Xattrs: map[string][]byte{attr: value}}
}

func encodeAufsMark(e Entry) ([]Node, error) {
	if e.Kind == OpaqueDir {
		return []Node{{Name: AufsOpaque, Type: typeRegular}}, nil
	}
	name, err := AufsWhiteoutName(e.Name)
	if err != nil {
		return nil, err
	}
	return []Node{{Name: name, Type: typeRegular}}, nil
}

func encodeOverlayPlain(p Prefix, e Entry) ([]Node, error) {
	n := e.Node
	if n.isWhiteoutDevice() {
		return nil, fmt.Errorf("a character device 0:0 would delete the name: %w", ErrNotRepresentable)
	}
	n.Xattrs = nil
	for attr, value := range e.Node.Xattrs {
		stored, ok := p.Escape(attr)
		if !ok {
			return nil, fmt.Errorf("xattr %q becomes too long behind the prefix %s%s: %w",
				attr, p, escape, ErrNotRepresentable)
		}
		setXattr(&n.Xattrs, stored, value)
	}
	if p == User && n.Type != typeRegular && n.Type != typeDir {
		// user.* xattrs are for files and directories only (xattr(7)).
		if e.Protattr != nil {
			return nil, fmt.Errorf("chattr flags %q cannot be kept in user.* xattrs of such a file: %w",
				e.Protattr.Encode(), ErrNotRepresentable)
		}
		return []Node{n}, nil
	}
	if e.Redirect != nil {
		setXattr(&n.Xattrs, p.Redirect(), []byte(e.Redirect.Encode()))
	}
	if e.Metacopy != nil {
		value, err := e.Metacopy.Encode()
		if err != nil {
			return nil, err
		}
		setXattr(&n.Xattrs, p.Metacopy(), value)
	}
	if e.Protattr != nil {
		setXattr(&n.Xattrs, p.Protattr(), e.Protattr.Encode())
	}
	for mark, value := range e.Bookkeeping {
		setXattr(&n.Xattrs, string(p)+mark, value)
	}
	return []Node{n}, nil
}

func encodeAufsPlain(e Entry) ([]Node, error) {
	switch {
	case strings.HasPrefix(e.Name, AufsPrefix):
		return nil, fmt.Errorf("names that begin with %q are marks: %w", AufsPrefix, ErrNotRepresentable)
	case e.Redirect != nil:
		return nil, fmt.Errorf("its lower part lies at %q, and this format has no redirects; copy it up whole: %w",
			e.Redirect, ErrNotRepresentable)
	case e.Metacopy != nil:
		return nil, fmt.Errorf("its data lie in a lower layer; copy them up first: %w", ErrNotRepresentable)
	case e.Protattr != nil:
		return nil, fmt.Errorf("it keeps chattr flags %q in an xattr; clear them first: %w",
			e.Protattr.Encode(), ErrNotRepresentable)
	}
	return []Node{e.Node}, nil
}
