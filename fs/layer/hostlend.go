package layer

import (
	"sync"

	"golang.org/x/sys/unix"
)

// lending keeps two callers from taking the mode that one of them has lent for
// the real one.
var lending sync.Mutex

// lendWrite does what needs the right to write to some objects, and where that
// is refused does it again while their owner has it. A server without privileges
// meets that with its own moves only (a directory of mode 0555 is copied up, or
// marked opaque): whether the user may do something was asked before.
//
// Crash in between: the owner may write to an object that he had made read-only.
func lendWrite(do func() error, objects ...*hostObject) error {
	err := do()
	if err != unix.EACCES {
		return err
	}
	lending.Lock()
	defer lending.Unlock()
	for _, o := range objects {
		back, ok := o.lend()
		if !ok {
			return err
		}
		defer back()
	}
	return do()
}

// lend gives the owner the right to write until back is called; false tells that
// this process is not the owner.
func (o *hostObject) lend() (back func(), ok bool) {
	st, err := o.Stat()
	if err != nil {
		return nil, false
	}
	mode := st.Mode & 0o7777
	if mode&0o200 != 0 || st.Type() == unix.S_IFLNK {
		return func() {}, true
	}
	if o.Chmod(mode|0o200) != nil {
		return nil, false
	}
	return func() {
		// Who could set the mode a moment ago can do so now, short of a disk
		// that fails; the owner then has more rights, and nobody else.
		_ = o.Chmod(mode)
	}, true
}

// rename moves a child. A directory is written to itself where it gets another
// parent, for its entry "..".
func (d *hostDir) rename(oldName string, to *hostDir, newName string, flags uint) error {
	move := func() error {
		return retry(func() error { return unix.Renameat2(d.fd, oldName, to.fd, newName, flags) })
	}
	err := move()
	if err != unix.EACCES {
		return err
	}
	objects := []*hostObject{&d.hostObject, &to.hostObject}
	moved := func(dir *hostDir, name string) {
		if child, err := dir.OpenDir(name); err == nil {
			objects = append(objects, &child.(*hostDir).hostObject)
		}
	}
	moved(d, oldName)
	if flags&unix.RENAME_EXCHANGE != 0 {
		moved(to, newName)
	}
	defer func() {
		for _, child := range objects[2:] {
			child.Close()
		}
	}()
	return lendWrite(move, objects...)
}
