package dataset

import (
	"bytes"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// maxStep is how many bytes a batch writes at most.
const maxStep = 1 << 20

const toEnd = blockpool.ToEnd

// fileLocked refuses what is no regular file.
func (n *Node) fileLocked() error {
	switch {
	case n.in.isDir():
		return unix.EISDIR
	case !n.in.isFile():
		return unix.EINVAL
	}
	return nil
}

// ReadQuietly is [FS.Read] that leaves the access time alone.
func (fs *FS) ReadQuietly(n *Node, p []byte, off int64) (int, error) {
	if err := n.rlock(); err != nil {
		return 0, err
	}
	defer n.mu.RUnlock()
	return n.readLocked(p, off)
}

// Read reads like pread(2).
func (fs *FS) Read(n *Node, p []byte, off int64) (int, error) {
	if err := n.rlock(); err != nil {
		return 0, err
	}
	k, err := n.readLocked(p, off)
	stale := err == nil && fs.opt.Load().Atime && n.atimeStale(fs.now())
	n.mu.RUnlock()
	if stale {
		fs.touch(n)
	}
	return k, err
}

func (n *Node) readLocked(p []byte, off int64) (int, error) {
	if err := n.fileLocked(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off >= n.in.size || len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), n.in.size-off)]
	if err := n.view.tree.ReadObject(n.object, p, off); err != nil {
		return 0, failed("read", n.object, err)
	}
	return len(p), nil
}

// atimeStale tells whether a read is to move the access time: when that is not
// after the last change, or is a day old (relatime of mount(8)); always with
// strictatime.
func (n *Node) atimeStale(now Time) bool {
	in := n.in
	if n.view.readOnly.Load() || in.flags&(flagNoatime|flagImmutable) != 0 {
		return false
	}
	if n.view.fs.opt.Load().StrictAtime {
		return in.atime.before(now)
	}
	return !in.mtime.before(in.atime) || !in.ctime.before(in.atime) || now.Sec-in.atime.Sec >= 24*60*60
}

// touch moves the access time. A read does not fail because of it.
func (fs *FS) touch(n *Node) {
	if n.lock() != nil {
		return
	}
	defer n.mu.Unlock()
	s := n.view.step()
	if n.atimeStale(s.now) {
		s.edit(n).atime = s.now
		_ = s.commit("set the access time", n.object)
	}
}

// Write writes all of p at off. kill takes away the suid and sgid bits, as a write
// by someone unprivileged does. Each megabyte is one batch: what is returned with an
// error has been written.
func (fs *FS) Write(n *Node, p []byte, off int64, kill bool) (int, error) {
	return fs.write(n, p, off, kill, false)
}

// WriteBack is Write for what the kernel has held back. It leaves the time of the
// last change alone: the kernel has shown the time of the write(2) since, and sets
// it by itself where it differs from the one that it was told last.
//
// Crash before it does: the file has new data and its old time.
func (fs *FS) WriteBack(n *Node, p []byte, off int64, kill bool) (int, error) {
	return fs.write(n, p, off, kill, true)
}

func (fs *FS) write(n *Node, p []byte, off int64, kill, back bool) (done int, err error) {
	v, err := n.lockWritable()
	if err != nil {
		return 0, err
	}
	defer n.mu.Unlock()
	if err := n.fileLocked(); err != nil {
		return 0, err
	}
	switch {
	case off < 0:
		return 0, unix.EINVAL
	case int64(len(p)) > v.maxSize()-off:
		return 0, unix.EFBIG
	case n.in.flags&flagImmutable != 0 && !back:
		return 0, unix.EPERM
	case n.in.flags&flagAppend != 0:
		if done, err = n.appendOnly(p, off); err != nil || done == len(p) {
			return done, err
		}
	}
	for done < len(p) {
		k := min(len(p)-done, maxStep)
		s := v.step()
		if err := s.write(n, p[done:done+k], off+int64(done)); err != nil {
			return done, err
		}
		in := s.change(n)
		if !back {
			in.mtime = s.now
		}
		if kill {
			in.mode = withoutPriv(in.mode)
		}
		if err := s.dropCaps(n); err != nil {
			return done, err
		}
		if err := s.commit("write", n.object); err != nil {
			return done, err
		}
		n.known = uint64((off+int64(done+k)-1)/v.size) + 1
		done += k
	}
	return done, nil
}

// appendOnly returns how much of p an append-only file (chattr +a) has already.
// Requests of write-back begin in what it holds; EPERM tells that p would change
// that, or leave a hole.
func (n *Node) appendOnly(p []byte, off int64) (int, error) {
	if off > n.in.size {
		return 0, unix.EPERM
	}
	held := int(min(n.in.size-off, int64(len(p))))
	old := make([]byte, held)
	if _, err := n.readLocked(old, off); err != nil {
		return 0, err
	}
	if !bytes.Equal(old, p[:held]) {
		return 0, unix.EPERM
	}
	return held, nil
}

// write adds the writing of p to a step: of one batch, not more.
func (s *step) write(n *Node, p []byte, off int64) error {
	end := off + int64(len(p))
	if err := s.prepareGrow(n, end); err != nil {
		return err
	}
	fresh, err := n.unmapped(off, end)
	if err != nil {
		return err
	}
	in := s.edit(n)
	in.mapped += fresh
	in.size = max(in.size, end)
	s.Write(n.object, off, p)
	return nil
}

// prepareGrow makes sure that what lies behind the size of a file reads as zeros,
// before it becomes part of it.
func (s *step) prepareGrow(n *Node, end int64) error {
	if !n.in.trim || end <= n.in.size {
		return nil
	}
	if err := n.trimLocked(); err != nil {
		return err
	}
	in := s.edit(n)
	in.trim, in.mapped = n.in.trim, n.in.mapped
	return nil
}

// records returns how many records a size has.
func (v *view) records(size int64) uint64 { return uint64((size + v.size - 1) / v.size) }

// dense tells whether a file has no holes, so that nothing has to be looked up.
func (n *Node) dense() bool { return !n.in.trim && n.in.mapped >= n.view.records(n.in.size) }

// unmapped returns how many records of a range in bytes are not there yet.
func (n *Node) unmapped(off, end int64) (uint64, error) {
	if end <= off {
		return 0, nil
	}
	v := n.view
	first, last := uint64(off/v.size), v.records(end)
	have := v.records(n.in.size)
	if first >= have {
		return last - first, nil
	}
	looked := min(last, have)
	if n.dense() || looked == first+1 && first+1 == n.known {
		return last - looked, nil
	}
	there, err := v.countRecords(n.object, first, looked)
	return last - first - min(there, last-first), err
}

// countRecords returns how many records of an object are there, of those from
// first up to and without end.
func (v *view) countRecords(object, first, end uint64) (count uint64, err error) {
	for first < end {
		a, b, err := v.tree.NextRecords(object, first)
		if err != nil {
			return 0, failed("look for records", object, err)
		}
		if a >= end || b <= a || a < first {
			break
		}
		count += min(b, end) - a
		first = b
	}
	return count, nil
}

// zero adds to a step that a range of a file, within its size, reads as zeros.
// Records that lie wholly in it go.
func (s *step) zero(n *Node, off, end int64) error {
	if end <= off {
		return nil
	}
	v := s.v
	if end >= n.in.size {
		end = int64(v.records(n.in.size)) * v.size // what lies behind the size is zeros anyway
	}
	first, last := v.records(off), uint64(end/v.size)
	if first < last {
		gone := last - first
		if !n.dense() {
			var err error
			if gone, err = v.countRecords(n.object, first, last); err != nil {
				return err
			}
		}
		in := s.edit(n)
		in.mapped -= min(gone, in.mapped)
		n.known = 0
	}
	s.Zero(n.object, off, end-off)
	return nil
}

// Fsync makes durable what was changed: all of it, as the pool has one log.
func (fs *FS) Fsync(n *Node, dataOnly bool) error {
	if n.view == nil || n.view.readOnly.Load() {
		return nil
	}
	if err := n.view.tree.Flush(fs.ctx); err != nil {
		return failed("fsync", n.object, err)
	}
	return nil
}

// Seek answers SEEK_DATA and SEEK_HOLE in steps of records. ENXIO tells that there
// is no data from off on, or that off is not within the file.
func (fs *FS) Seek(n *Node, off int64, whence int) (int64, error) {
	if err := n.rlock(); err != nil {
		return 0, err
	}
	defer n.mu.RUnlock()
	if err := n.fileLocked(); err != nil {
		return 0, err
	}
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, unix.EINVAL
	}
	if off < 0 || off >= n.in.size {
		return 0, unix.ENXIO
	}
	v := n.view
	for at := uint64(off / v.size); ; {
		first, end, err := v.tree.NextRecords(n.object, at)
		if err != nil {
			return 0, failed("seek", n.object, err)
		}
		none := end <= first || int64(first) >= (n.in.size+v.size-1)/v.size
		switch {
		case whence == unix.SEEK_DATA && none:
			return 0, unix.ENXIO
		case whence == unix.SEEK_DATA:
			return max(off, int64(first)*v.size), nil
		case none || first > at:
			return min(max(off, int64(at)*v.size), n.in.size), nil
		}
		at = end // a hole begins here, unless another run does
		if int64(at) >= (n.in.size+v.size-1)/v.size {
			return n.in.size, nil
		}
	}
}
