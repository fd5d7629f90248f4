package inspect

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// Marks are what an object says of the layers below it.
type Marks struct {
	// Opaque tells that a directory hides what lower layers have in it.
	Opaque bool
	// Redirect tells where the lower part of a directory lies, or the data of
	// a metacopy file.
	Redirect *whiteout.Redirect
	// Metacopy tells that the data of a file lie in a lower layer.
	Metacopy bool
	// Origin tells that the object was copied from a lower layer.
	Origin bool

	xattrWhiteouts bool // empty files in the directory may be whiteouts
	whiteout       bool // an empty file with it is one
}

// A WhiteoutForm is how a name was deleted.
type WhiteoutForm int

const (
	NoWhiteout     WhiteoutForm = iota
	DeviceWhiteout              // character device 0:0
	XattrWhiteout               // an empty file with an xattr
	NameWhiteout                // .wh.NAME
)

func (w WhiteoutForm) String() string {
	return [...]string{"no whiteout", "device 0:0", "xattr", ".wh. name"}[w]
}

// hit is what one part of a directory has under a name.
type hit struct {
	there bool
	form  WhiteoutForm
	st    layer.Stat
	m     Marks
	sub   layer.Dir // the child if it is a directory that could be opened
	err   error     // its marks cannot be read, or
	// unopened: it is a directory that this user may not open.
	unopened bool
}

// probe looks for a name in one part. It is fs/union's probe, with the
// difference that marks are always read: what a mark of the lowest layer says
// changes nothing of what is shown, but is there.
func (p *part) probe(name string) (hit, error) {
	if kind, _ := whiteout.ParseAufsName(name); kind != whiteout.NotMark {
		return hit{}, nil
	}
	st, err := p.dir.StatAt(name)
	switch {
	case err == unix.ENOENT || err == unix.ENAMETOOLONG:
		return p.probeName(name)
	case err != nil:
		return hit{}, err
	case st.IsWhiteoutDevice():
		return hit{there: true, form: DeviceWhiteout, st: st}, nil
	}
	h := hit{there: true, st: st}
	if st.IsDir() || st.IsRegular() && (p.xattrWhiteouts || st.Size > 0 && !p.bottom) {
		h.m, h.err = readMarks(childXattrs{p.dir, name})
		if p.noFollow {
			h.m.Redirect = nil
		}
		if h.m.whiteout && p.xattrWhiteouts && st.IsRegular() && st.Size == 0 {
			return hit{there: true, form: XattrWhiteout, st: st}, nil
		}
	}
	if st.IsDir() {
		if h.sub, err = p.dir.OpenDir(name); err != nil {
			h.err, h.unopened = err, h.err == nil
			return h, nil
		}
		if !h.m.Opaque && !p.bottom && h.err == nil {
			h.m.Opaque, h.err = hasOpaqueName(h.sub)
		}
	}
	return h, nil
}

// probeName looks for .wh.NAME.
func (p *part) probeName(name string) (hit, error) {
	wh, err := whiteout.AufsWhiteoutName(name)
	if err != nil {
		return hit{}, nil // a name too long for a whiteout has none
	}
	switch st, err := p.dir.StatAt(wh); err {
	case nil:
		return hit{there: true, form: NameWhiteout, st: st}, nil
	case unix.ENOENT:
		return hit{}, nil
	default:
		return hit{}, err
	}
}

func hasOpaqueName(d layer.Dir) (bool, error) {
	switch _, err := d.StatAt(whiteout.AufsOpaque); err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, err
	}
}

// xattrs reads attributes of an open object, or of a child by its name.
type xattrs interface {
	list(dest []byte) (int, error)
	get(attr string, dest []byte) (int, error)
}

type objectXattrs struct{ layer.Object }

func (o objectXattrs) list(dest []byte) (int, error)          { return o.Listxattr(dest) }
func (o objectXattrs) get(a string, dest []byte) (int, error) { return o.Getxattr(a, dest) }

type childXattrs struct {
	dir  layer.Dir
	name string
}

func (c childXattrs) list(dest []byte) (int, error) { return c.dir.ListxattrAt(c.name, dest) }
func (c childXattrs) get(a string, dest []byte) (int, error) {
	return c.dir.GetxattrAt(c.name, a, dest)
}

// xattrSizeMax is the longest value and the longest list (linux/limits.h).
const xattrSizeMax = 65536

// sized calls a getter with a small buffer, and with the largest if need be.
func sized(get func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := get(small[:])
	if err == nil {
		return bytes.Clone(small[:n]), nil
	}
	if err != unix.ERANGE {
		return nil, err
	}
	big := make([]byte, xattrSizeMax)
	n, err = get(big)
	return big[:max(n, 0)], err
}

// listXattrs returns the names of all attributes; none where the filesystem has
// no attributes.
func listXattrs(r xattrs) ([]string, error) {
	list, err := sized(r.list)
	if err == unix.EOPNOTSUPP || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00"), nil
}

// allXattrs returns all attributes and their values.
func allXattrs(r xattrs) (map[string][]byte, error) {
	names, err := listXattrs(r)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	all := make(map[string][]byte, len(names))
	for _, a := range names {
		v, err := sized(func(b []byte) (int, error) { return r.get(a, b) })
		if err == unix.ENODATA {
			continue // it went meanwhile, or this user may not see it
		}
		if err != nil {
			return nil, fmt.Errorf("xattr %q: %w", a, err)
		}
		all[a] = v
	}
	return all, nil
}

// markName returns the name of a mark without its namespace.
func markName(attr string) (string, bool) {
	for _, p := range []string{string(whiteout.Trusted), string(whiteout.User)} {
		if name, ok := strings.CutPrefix(attr, p); ok {
			return name, true
		}
	}
	return "opaque", attr == whiteout.FuseOverlayfsOpaque
}

// readMarks reads the marks of an object as fs/union does, both namespaces.
func readMarks(r xattrs) (m Marks, err error) {
	names, err := listXattrs(r)
	if err != nil {
		return m, err
	}
	for _, attr := range names {
		mark, ok := markName(attr)
		if !ok {
			continue
		}
		v, err := sized(func(b []byte) (int, error) { return r.get(attr, b) })
		if err == nil {
			err = m.take(mark, v)
		}
		if err != nil && err != unix.ENODATA {
			return m, fmt.Errorf("xattr %s: %w", attr, err)
		}
	}
	return m, nil
}

func (m *Marks) take(mark string, v []byte) error {
	switch mark {
	case "opaque":
		// As in the kernel a value that means nothing is no mark.
		o, _ := whiteout.ParseOpaque(v)
		m.Opaque = m.Opaque || o == whiteout.OpaqueYes
		m.xattrWhiteouts = m.xattrWhiteouts || o == whiteout.OpaqueXattrWhiteouts
	case "whiteout":
		m.whiteout = true
	case "metacopy":
		m.Metacopy = true
		_, err := whiteout.ParseMetacopy(v)
		return err
	case "redirect":
		r, err := whiteout.ParseRedirect(v)
		if err != nil {
			return err
		}
		m.Redirect = &r
	case "origin":
		m.Origin = true
	}
	return nil
}
