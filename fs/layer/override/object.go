package override

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// object is any object of the layer below.
type object struct {
	layer.Object
	name Attr
}

func (o *object) Stat() (layer.Stat, error) {
	st, err := o.Object.Stat()
	if err != nil {
		return st, err
	}
	return o.name.present(st, o.Object.Getxattr)
}

// change rewrites the attribute. Objects that cannot have one are changed
// themselves by plain.
func (o *object) change(edit func(*layer.Stat), plain func() error) error {
	below, err := o.Object.Stat()
	if err != nil {
		return err
	}
	if !bears(&below) {
		return plain()
	}
	st, err := o.name.present(below, o.Object.Getxattr)
	if err != nil {
		return err
	}
	edit(&st)
	// Writing the value that is there moves no time, a chmod or chown does.
	if err := o.Object.Chown(-1, -1); err != nil {
		return err
	}
	return o.mark(&st)
}

// mark writes the attribute.
func (o *object) mark(st *layer.Stat) error {
	return o.Object.Setxattr(o.name.xattr, format(st), 0)
}

func (o *object) Chmod(mode uint32) error {
	return o.change(
		func(st *layer.Stat) { st.Mode = st.Type() | mode&0o7777 },
		func() error { return o.Object.Chmod(mode) })
}

// Chown changes the attribute, and clears what chown(2) clears: capabilities,
// set-user-ID, and set-group-ID where it means execution. Where an object cannot have one and the user may
// not change the inode, the owner stays as it is: that of a symbolic link has
// next to no meaning, and a failure would keep whole trees from being copied.
func (o *object) Chown(uid, gid int) error {
	return o.change(
		func(st *layer.Stat) {
			if uid >= 0 {
				st.UID = uint32(uid)
			}
			if gid >= 0 {
				st.GID = uint32(gid)
			}
			if st.IsDir() {
				return
			}
			st.Mode &^= unix.S_ISUID
			if st.Mode&unix.S_IXGRP != 0 {
				st.Mode &^= unix.S_ISGID
			}
			_ = o.Removexattr("security.capability") // there seldom is one
		},
		func() error {
			if err := o.Object.Chown(uid, gid); err != unix.EPERM && err != unix.EINVAL {
				return err
			}
			return nil
		})
}

func (o *object) Getxattr(attr string, dest []byte) (int, error) {
	return o.name.get(o.Object.Getxattr, attr, dest)
}

func (o *object) Listxattr(dest []byte) (int, error) {
	return o.name.list(o.Object.Listxattr, dest)
}

func (o *object) Setxattr(attr string, value []byte, flags int) error {
	attr, err := o.name.forChange(attr)
	if err != nil {
		return err
	}
	return o.Object.Setxattr(attr, value, flags)
}

func (o *object) Removexattr(attr string) error {
	attr, err := o.name.forChange(attr)
	if err != nil {
		return err
	}
	return o.Object.Removexattr(attr)
}

func (o *object) Reopen(flags int) (layer.File, error) {
	st, err := o.Stat()
	if err == nil && !st.IsRegular() {
		err = unix.EINVAL
	}
	if err != nil {
		return nil, err
	}
	f, err := o.Object.Reopen(flags)
	return o.name.file(f, err)
}

// file wraps a file that was just opened, unless it stands for a device, a FIFO
// or a socket, which is never opened: ENXIO.
func (name Attr) file(f layer.File, err error) (layer.File, error) {
	if err != nil {
		return nil, err
	}
	w := &file{object{f, name}, f}
	st, err := w.Stat()
	if err == nil && !st.IsRegular() {
		err = unix.ENXIO
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return w, nil
}
