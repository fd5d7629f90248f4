package tree

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// A Format says how a layer's directory holds what is deleted.
type Format int

const (
	// Full is a whole tree: what is deleted is not there.
	Full Format = iota
	// Overlay marks with character devices 0:0 and trusted.overlay.*.
	Overlay
	// OverlayUser marks with user.overlay.*, for those who have no other.
	OverlayUser
	// Aufs marks with files .wh.NAME.
	Aufs
)

func (f Format) isOverlay() bool { return f == Overlay || f == OverlayUser }

// marks say in a layer's directory that something below is hidden.
type marks interface {
	delete(dir layer.Dir, name string) error
	// restore takes the mark of delete away, if it is there.
	restore(dir layer.Dir, name string) error
	opaque(dir layer.Dir, path string) error
}

func (f Format) marks(a *applier) marks {
	switch f {
	case Overlay:
		return overlayMarks{whiteout.Trusted}
	case OverlayUser:
		return overlayMarks{whiteout.User}
	case Aufs:
		return aufsMarks{}
	}
	return fullTree{a}
}

// overlayMarks are those of kernel overlayfs. Where no device can be made, an
// empty file with an xattr takes its place in a directory that says so (Linux 6.7).
type overlayMarks struct{ prefix whiteout.Prefix }

func (m overlayMarks) delete(dir layer.Dir, name string) error {
	err := dir.Mknod(name, unix.S_IFCHR, 0)
	if err != unix.EPERM {
		return err
	}
	f, err := dir.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Setxattr(m.prefix.Whiteout(), []byte("y"), 0); err != nil {
		return err
	}
	var have [2]byte
	if n, err := dir.Getxattr(m.prefix.Opaque(), have[:]); err == nil && string(have[:n]) == "y" {
		return nil // hides the name already
	}
	return dir.Setxattr(m.prefix.Opaque(), whiteout.OpaqueXattrWhiteouts.Encode(), 0)
}

func (m overlayMarks) restore(dir layer.Dir, name string) error {
	st, err := dir.StatAt(name)
	if err == unix.ENOENT || err == nil && st.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	return dir.Unlink(name)
}

func (m overlayMarks) opaque(dir layer.Dir, _ string) error {
	return dir.Setxattr(m.prefix.Opaque(), whiteout.OpaqueYes.Encode(), 0)
}

// aufsMarks are those of aufs.
type aufsMarks struct{}

func (aufsMarks) delete(dir layer.Dir, name string) error {
	mark, err := whiteout.AufsWhiteoutName(name)
	if err != nil {
		return err
	}
	return emptyFile(dir, mark)
}

func (aufsMarks) restore(dir layer.Dir, name string) error {
	mark, err := whiteout.AufsWhiteoutName(name)
	if err != nil {
		return err
	}
	if err := dir.Unlink(mark); err != unix.ENOENT {
		return err
	}
	return nil
}

func (aufsMarks) opaque(dir layer.Dir, _ string) error { return emptyFile(dir, whiteout.AufsOpaque) }

func emptyFile(dir layer.Dir, name string) error {
	f, err := dir.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o444)
	if err == unix.EEXIST {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// fullTree carries deletions out. What the archive itself has made stays.
type fullTree struct{ a *applier }

func (fullTree) delete(dir layer.Dir, name string) error  { return removeAll(dir, name) }
func (fullTree) restore(dir layer.Dir, name string) error { return nil }

func (t fullTree) opaque(dir layer.Dir, path string) error {
	list, err := dir.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		p := join(path, e.Name)
		switch t.a.made[p] {
		case isFile:
			continue
		case isDirectory, isThrough:
			sub, err := dir.OpenDir(e.Name)
			if err != nil {
				return err
			}
			err = t.opaque(sub, p)
			sub.Close()
			if err != nil {
				return err
			}
			continue
		}
		if err := removeAll(dir, e.Name); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes a name and all below it; none is no error.
func removeAll(dir layer.Dir, name string) error {
	st, err := dir.StatAt(name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return dir.Unlink(name)
	}
	sub, err := dir.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	list, err := sub.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := removeAll(sub, e.Name); err != nil {
			return err
		}
	}
	return dir.Rmdir(name)
}
