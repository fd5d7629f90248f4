package whiteout

import (
	"fmt"
	"maps"
)

// ConvertDir translates one directory of a layer: the nodes in it, and if it
// has xattrs the node with the empty Name that stands for itself. The result
// has one such node, first, if there is anything to be stored on the directory.
//
// Nothing that users would see is lost. What the other format cannot say makes
// it fail, with [ErrNotRepresentable] or [ErrNameTooLong] and the name; what
// cannot be read, with [ErrMalformed]. Three things are settled on the way,
// since a directory says them as a whole:
//
//   - Whiteouts in an opaque directory hide nothing. A format whose opaque
//     mark has but one value for either goes without them.
//   - A whiteout beside a file of the same name, which OCI layers may have,
//     hides nothing the file does not hide.
//   - A whiteout beside a directory of the same name makes that directory
//     opaque. An overlay says so by a mark on it: its node then has that as
//     its one xattr, to be added to what converting the directory itself gives.
func ConvertDir(from, to Format, nodes []Node) ([]Node, error) {
	dir, err := decodeDir(from, nodes)
	if err != nil {
		return nil, err
	}
	if err := dir.settle(from, to); err != nil {
		return nil, err
	}
	return dir.encode(to)
}

// A dirContent is the meaning of a directory.
type dirContent struct {
	entries []Entry
	opaque  bool
	replace map[string]bool // directories that hide what lower layers have
}

func decodeDir(from Format, nodes []Node) (*dirContent, error) {
	d := &dirContent{replace: map[string]bool{}}
	for _, n := range nodes {
		entries, err := from.Decode(n)
		if err != nil {
			return nil, fmt.Errorf("read as %v: %w", from, err)
		}
		for _, e := range entries {
			if e.Kind == OpaqueDir {
				d.opaque = true
				continue
			}
			d.entries = append(d.entries, e)
		}
	}
	return d, nil
}

// settle drops the whiteouts that need not or cannot be written.
func (d *dirContent) settle(from, to Format) error {
	plain := map[string]uint32{}
	for _, e := range d.entries {
		if e.Kind == Plain && e.Name != "" {
			plain[e.Name] = e.Node.Type
		}
	}
	kept := d.entries[:0]
	for _, e := range d.entries {
		if e.Kind != Deleted {
			kept = append(kept, e)
			continue
		}
		objectType, beside := plain[e.Name]
		switch {
		case d.opaque && to.xattrWhiteouts():
		case !beside:
			kept = append(kept, e)
		case from == Aufs:
			return fmt.Errorf("read %q as aufs: it is there and deleted at once: %w", e.Name, ErrMalformed)
		case objectType != typeDir || d.opaque:
		case to == OCI:
			kept = append(kept, e)
		case to == Aufs:
			return fmt.Errorf("write %q as aufs: a directory that replaces another needs a file %s in it: %w",
				e.Name, AufsOpaque, ErrNotRepresentable)
		default:
			d.replace[e.Name] = true
		}
	}
	d.entries = kept
	return nil
}

func (d *dirContent) encode(to Format) ([]Node, error) {
	self := Node{Type: typeDir}
	var nodes []Node
	add := func(e Entry) error {
		encoded, err := to.Encode(e)
		if err != nil {
			return err
		}
		for _, n := range encoded {
			if n.Name != "" {
				nodes = append(nodes, n)
				continue
			}
			if self.Xattrs == nil {
				self.Xattrs = map[string][]byte{}
			}
			maps.Copy(self.Xattrs, n.Xattrs)
		}
		return nil
	}
	if d.opaque {
		if err := add(Entry{Kind: OpaqueDir}); err != nil {
			return nil, err
		}
	}
	for _, e := range d.entries {
		if err := add(e); err != nil {
			return nil, err
		}
		if d.replace[e.Name] {
			p, _ := to.Prefix()
			nodes[len(nodes)-1].Xattrs = map[string][]byte{p.Opaque(): OpaqueYes.Encode()}
		}
	}
	if self.Xattrs != nil {
		nodes = append([]Node{self}, nodes...)
	}
	return nodes, nil
}
