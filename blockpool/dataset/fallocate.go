package dataset

import "golang.org/x/sys/unix"

// maxMove is how much data a file may have behind what is taken out of it, or put
// into it, in bytes: it all moves in one batch.
const maxMove = 16 << 20

const (
	fallocKeepSize = unix.FALLOC_FL_KEEP_SIZE
	fallocPunch    = unix.FALLOC_FL_PUNCH_HOLE
	fallocZero     = unix.FALLOC_FL_ZERO_RANGE
	fallocCollapse = unix.FALLOC_FL_COLLAPSE_RANGE
	fallocInsert   = unix.FALLOC_FL_INSERT_RANGE
	fallocUnshare  = unix.FALLOC_FL_UNSHARE_RANGE
)

// Fallocate is fallocate(2) with its modes. As nothing is ever written in its
// place, space cannot be set aside: allocating checks that there is enough now,
// ENOSPC if not. Collapsing and inserting take multiples of the record size, which
// stat(2) tells as the block size, and give EOPNOTSUPP where more than 16 MiB of
// data would move.
//
// Crash while much is punched or zeroed: the range is zeros from its beginning up to
// some record. Everything else is one batch.
func (fs *FS) Fallocate(n *Node, mode uint32, off, length int64, kill bool) error {
	if err := checkFallocate(mode, off, length); err != nil {
		return err
	}
	v, err := n.lockWritable()
	if err != nil {
		return err
	}
	defer n.mu.Unlock()
	switch {
	case n.in.isDir():
		return unix.EISDIR
	case n.in.typ() == unix.S_IFIFO:
		return unix.ESPIPE
	case !n.in.isFile():
		return unix.ENODEV
	case n.in.flags&flagImmutable != 0, n.in.flags&flagAppend != 0 && mode&^fallocKeepSize != 0:
		return unix.EPERM
	case length > v.maxSize()-off:
		return unix.EFBIG
	}
	if n.in.trim {
		if err := n.trimLocked(); err != nil {
			return err
		}
	}
	end := off + length
	switch {
	case mode&fallocPunch != 0:
		return n.clear(off, min(end, n.in.size), n.in.size, kill)
	case mode&fallocZero != 0 && mode&fallocKeepSize != 0:
		return n.clear(off, min(end, n.in.size), n.in.size, kill)
	case mode&fallocZero != 0:
		return n.clear(off, min(end, n.in.size), max(end, n.in.size), kill)
	case mode&fallocCollapse != 0:
		return n.collapse(off, length, kill)
	case mode&fallocInsert != 0:
		return n.insert(off, length, kill)
	}
	return n.reserve(off, end, mode, kill)
}

// checkFallocate refuses modes that make no sense (vfs_fallocate in fs/open.c).
func checkFallocate(mode uint32, off, length int64) error {
	const known = fallocKeepSize | fallocPunch | fallocZero | fallocCollapse | fallocInsert | fallocUnshare
	if off < 0 || length <= 0 {
		return unix.EINVAL
	}
	if mode&^known != 0 {
		return unix.EOPNOTSUPP
	}
	switch mode &^ fallocKeepSize {
	case 0, fallocZero, fallocUnshare:
		return nil
	case fallocPunch:
		if mode&fallocKeepSize != 0 {
			return nil
		}
		return unix.EOPNOTSUPP
	case fallocCollapse, fallocInsert:
		if mode&fallocKeepSize == 0 {
			return nil
		}
		return unix.EINVAL
	}
	if mode&(fallocCollapse|fallocInsert|fallocUnshare) != 0 {
		return unix.EINVAL
	}
	return unix.EOPNOTSUPP
}

// written adds to a step what any change of the data of a file does.
func (s *step) written(n *Node, kill bool) error {
	in := s.change(n)
	in.mtime = s.now
	if kill {
		in.mode = withoutPriv(in.mode)
	}
	return s.dropCaps(n)
}

// reserve makes sure that a range could be written now, and makes the file as long
// as that unless mode says not to.
func (n *Node) reserve(off, end int64, mode uint32, kill bool) error {
	v := n.view
	fresh, err := n.unmapped(off, end)
	if err != nil {
		return err
	}
	if mode&fallocUnshare != 0 {
		fresh = v.records(end) - uint64(off/v.size)
	}
	if space := v.tree.Space().Available; fresh > uint64(max(0, space)/v.size) {
		return failed("allocate", n.object, unix.ENOSPC)
	}
	s := v.step()
	if err := s.written(n, kill); err != nil {
		return err
	}
	if mode&fallocKeepSize == 0 {
		in := s.edit(n)
		in.size = max(in.size, end)
	}
	return s.commit("allocate", n.object)
}

// clear makes a range zeros, in pieces where it has many records, and gives the
// file another size in the last one.
func (n *Node) clear(off, end, size int64, kill bool) error {
	v := n.view
	for {
		upTo := end
		if v.records(end)-min(v.records(off), v.records(end)) > maxDrop && n.in.mapped > maxDrop {
			upTo = (off/v.size + maxDrop) * v.size
		}
		s := v.step()
		if err := s.written(n, kill); err != nil {
			return err
		}
		s.Frees = true
		if err := s.zero(n, off, upTo); err != nil {
			return err
		}
		if upTo == end {
			s.edit(n).size = size
		}
		if err := s.commit("zero a range", n.object); err != nil || upTo == end {
			return err
		}
		off = upTo
	}
}

func (n *Node) collapse(off, length int64, kill bool) error {
	v := n.view
	if off%v.size != 0 || length%v.size != 0 || off+length >= n.in.size {
		return unix.EINVAL
	}
	from, to := uint64((off+length)/v.size), uint64(off/v.size)
	gone, err := v.countRecords(n.object, to, from)
	if err != nil {
		return err
	}
	s := v.step()
	if err := s.moveTail(n, from, to); err != nil {
		return err
	}
	in := s.edit(n)
	in.size -= length
	in.mapped -= min(gone, in.mapped)
	if err := s.written(n, kill); err != nil {
		return err
	}
	return s.commit("collapse a range", n.object)
}

func (n *Node) insert(off, length int64, kill bool) error {
	v := n.view
	switch {
	case off%v.size != 0 || length%v.size != 0 || off >= n.in.size:
		return unix.EINVAL
	case length > v.maxSize()-n.in.size:
		return unix.EFBIG
	}
	s := v.step()
	if err := s.moveTail(n, uint64(off/v.size), uint64((off+length)/v.size)); err != nil {
		return err
	}
	s.edit(n).size += length
	if err := s.written(n, kill); err != nil {
		return err
	}
	return s.commit("insert a range", n.object)
}

// moveTail adds to a step that the records of a file from one on are those from
// another one on. What is free between them, and behind them, is zeros.
func (s *step) moveTail(n *Node, from, to uint64) error {
	v := s.v
	n.known = 0
	have, pos := v.records(n.in.size), min(from, to)
	var moved int64
	for r := from; r < have; {
		a, b, err := v.tree.NextRecords(n.object, r)
		if err != nil {
			return failed("move records", n.object, err)
		}
		if b <= a || a >= have {
			break
		}
		b = min(b, have)
		if at := a - from + to; at > pos {
			s.Zero(n.object, int64(pos)*v.size, int64(at-pos)*v.size)
		}
		if moved += int64(b-a) * v.size; moved > maxMove {
			return unix.EOPNOTSUPP
		}
		p := make([]byte, int64(b-a)*v.size)
		if err := v.tree.ReadObject(n.object, p, int64(a)*v.size); err != nil {
			return failed("move records", n.object, err)
		}
		s.Write(n.object, int64(a-from+to)*v.size, p)
		pos, r = b-from+to, b
	}
	s.Zero(n.object, int64(pos)*v.size, toEnd)
	return nil
}
