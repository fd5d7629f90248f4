package union

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// The names inside of the directory that the user gives as work directory are
// the kernel's, so that an upper can go from one to the other.
const (
	workName  = "work"  // what is being staged; swept at each start
	indexName = "index" // one name for each copied-up inode with several names
)

// workDir is where objects are made before they become visible by one rename
// or link. Whatever a crash leaves in it was never visible.
type workDir struct {
	root layer.Dir // as given
	dir  layer.Dir // root/work
	seq  atomic.Uint64
	// journalled tells that the filesystem orders metadata behind data that
	// was written out, so that staging needs no commit of its own.
	journalled bool
	// acl tells that the directory may have a default ACL, of which what is made
	// there takes its mode.
	acl    bool
	unlock func()
}

func (w *workDir) close() error {
	if w.unlock != nil {
		w.unlock()
	}
	w.dir.Close()
	return w.root.Close()
}

func (fs *FS) openWork(b Branch) error {
	w := &workDir{root: b.Root}
	var seed [8]byte
	rand.Read(seed[:])
	w.seq.Store(binary.LittleEndian.Uint64(seed[:]) &^ 0xffff)
	up := fs.upper.root.pin.Load().obj
	ust, err := up.Stat()
	if err != nil {
		return err
	}
	wst, err := b.Root.Stat()
	if err != nil {
		return err
	}
	if ust.Dev != wst.Dev {
		return fmt.Errorf("union: work directory %s is not on the filesystem of the upper %s: name a directory beside the upper: %w",
			b.Name, fs.upper.name, unix.EXDEV)
	}
	if ust.Ino == wst.Ino {
		return fmt.Errorf("union: work directory %s is the upper itself: name another, empty directory: %w", b.Name, unix.EINVAL)
	}
	if w.dir, err = subdir(b.Root, workName); err != nil {
		return fmt.Errorf("union: work directory %s: cannot make %q in it: %w", b.Name, workName, err)
	}
	fs.work = w
	if w.unlock, err = lockUpper(w.dir); err != nil {
		return fmt.Errorf("union: work directory %s is in use by another mount of upper %s: unmount that first (lamina ps lists mounts): %w",
			b.Name, fs.upper.name, err)
	}
	if err := sweep(w.dir); err != nil {
		return fmt.Errorf("union: work directory %s: cannot remove what an earlier mount left: %w", b.Name, err)
	}
	// It was inherited from where the user keeps the work directory, and would
	// be by the copies (ovl_workdir_create in fs/overlayfs/super.c).
	err = w.dir.Removexattr(aclDefault)
	w.acl = err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP
	if st, err := w.dir.Statfs(); err == nil {
		switch st.Type {
		case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
			w.journalled = true
		}
	}
	if fs.opt.Index {
		return fs.openIndex(b)
	}
	return nil
}

// lockWait is how long the start waits for an earlier mount to end: a server
// ends a moment after its mount has gone.
const lockWait = 3 * time.Second

// lockUpper makes sure that one union at a time writes to an upper. Two would
// each believe their own tables and overwrite what the other has staged.
func lockUpper(d layer.Dir) (func(), error) {
	l, ok := d.(layer.Lockable)
	if !ok {
		return nil, nil
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		unlock, err := l.TryLock()
		switch {
		case err == nil:
			return unlock, nil
		case err != unix.EWOULDBLOCK:
			return nil, nil // a filesystem without locks has none to take
		case time.Now().After(deadline):
			return nil, unix.EBUSY
		}
	}
}

// subdir opens a directory, and makes it if it is missing. The kernel makes its
// work directory without any permission, which stops ordinary users.
func subdir(parent layer.Dir, name string) (layer.Dir, error) {
	if err := parent.Mkdir(name, 0o700); err != nil && err != unix.EEXIST {
		return nil, err
	}
	d, err := parent.OpenDir(name)
	if err != nil {
		return nil, err
	}
	if st, err := d.Stat(); err == nil && st.Mode&0o700 != 0o700 {
		if err := d.Chmod(0o700); err != nil {
			d.Close()
			return nil, err
		}
	}
	return d, nil
}

// sweep empties a directory.
func sweep(d layer.Dir) error {
	list, err := d.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := removeAll(d, e.Name); err != nil {
			return fmt.Errorf("%q: %w", e.Name, err)
		}
	}
	return nil
}

func removeAll(d layer.Dir, name string) error {
	err := d.Unlink(name)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	if err := d.Rmdir(name); err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	err = sweep(sub)
	if errors.Is(err, unix.EACCES) {
		// Only now: someone may still hold the directory and see its mode.
		if err = sub.Chmod(0o700); err == nil {
			err = sweep(sub)
		}
	}
	if err != nil {
		return err
	}
	return d.Rmdir(name)
}

// temp calls make with names that are free until one is taken.
func (w *workDir) temp(create func(d layer.Dir, name string) error) (string, error) {
	for {
		name := "#" + strconv.FormatUint(w.seq.Add(1), 16)
		if err := create(w.dir, name); err != unix.EEXIST {
			return name, err
		}
	}
}

// remove takes away a staged object that was not published. If that fails, the
// next start sweeps it.
func (w *workDir) remove(name string) { _ = removeAll(w.dir, name) }

// stagedFile is a regular file on its way into the upper.
type stagedFile struct {
	w    *workDir
	file layer.File
	name string // in the work directory; empty: has no name (O_TMPFILE)
	done bool   // published or handed over
}

// tempFile makes an empty file: without a name where the filesystem can, else
// in the work directory.
func (w *workDir) tempFile(mode uint32) (*stagedFile, error) {
	s := &stagedFile{w: w}
	var err error
	s.file, err = w.dir.TmpFile(mode)
	if err == nil {
		return s, nil
	}
	if err != unix.EOPNOTSUPP && err != unix.EISDIR && err != unix.EINVAL {
		return nil, err
	}
	s.name, err = w.temp(func(d layer.Dir, name string) (err error) {
		s.file, err = d.OpenFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// discard drops the file unless it was published.
func (s *stagedFile) discard() {
	if s.name != "" {
		s.w.remove(s.name)
	}
	if !s.done {
		s.file.Close()
	}
}

// publish gives the file its name in dir, where replace tells that the name is
// taken by something that is to go. It is the only visible step.
func (s *stagedFile) publish(dir layer.Dir, name string, replace bool) error {
	if s.name == "" && !replace {
		return dir.Link(s.file, name)
	}
	if s.name == "" {
		tmp, err := s.w.temp(func(d layer.Dir, name string) error { return d.Link(s.file, name) })
		if err != nil {
			return err
		}
		s.name = tmp
	}
	if err := s.w.dir.Rename(s.name, dir, name, 0); err != nil {
		return err
	}
	s.name = ""
	return nil
}

// handOver gives the open file to the caller.
func (s *stagedFile) handOver() layer.File {
	s.done = true
	return s.file
}

// sync makes the data durable before anything refers to it. A filesystem that
// journals its metadata only needs the data written out: the later link or
// rename is then never on disk without it (ext4 and xfs update the size when
// the data has been written; btrfs commits the extents and the name together).
func (fs *FS) syncStaged(f layer.File, size int64) error {
	switch {
	case fs.opt.Volatile || size == 0:
		return nil
	case fs.work.journalled:
		return f.WriteOut()
	}
	return f.Sync(false)
}
