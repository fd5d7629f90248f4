package union

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// dirBytes is what a directory counts for. Filesystems differ, and the same
// tree must count the same when it is made and at the next mount.
const dirBytes = 4096

// limiter bounds what the upper may hold: bytes as they are allocated, and
// objects. Whiteouts are free. A removed file counts as long as it is in use.
// Without bounds it costs nothing.
type limiter struct {
	mu                sync.Mutex
	maxBytes, bytes   int64
	maxInodes, inodes int64
}

func (l *limiter) on() bool { return l.maxBytes > 0 || l.maxInodes > 0 }

// start sets the bounds and counts what the upper holds already: dirs are its
// root and the index, where copies lie that only lower names lead to.
func (l *limiter) start(maxBytes, maxInodes int64, dirs ...layer.Dir) error {
	l.maxBytes, l.maxInodes = maxBytes, maxInodes
	if !l.on() {
		return nil
	}
	seen := map[uint64]bool{}
	for _, d := range dirs {
		if err := l.count(d, seen); err != nil {
			return err
		}
	}
	return nil
}

func (l *limiter) count(d layer.Dir, seen map[uint64]bool) error {
	list, err := d.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		st, err := d.StatAt(e.Name)
		if err != nil {
			return err
		}
		if kind, _ := whiteout.ParseAufsName(e.Name); kind != whiteout.NotMark || st.IsWhiteoutDevice() {
			continue
		}
		if st.Nlink > 1 && !st.IsDir() {
			if seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
		}
		l.bytes += objectBytes(&st)
		l.inodes++
		if !st.IsDir() {
			continue
		}
		sub, err := d.OpenDir(e.Name)
		if err != nil {
			return err
		}
		err = l.count(sub, seen)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// take reserves bytes and objects, ENOSPC if there is no room.
func (l *limiter) take(bytes, inodes int64) error {
	if !l.on() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.maxBytes > 0 && bytes > 0 && l.bytes+bytes > l.maxBytes || l.maxInodes > 0 && inodes > 0 && l.inodes+inodes > l.maxInodes {
		return unix.ENOSPC
	}
	l.bytes += bytes
	l.inodes += inodes
	return nil
}

func (l *limiter) give(bytes, inodes int64) {
	if !l.on() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes -= bytes
	l.inodes -= inodes
}

// takeObject reserves what a new object of a type takes without any data.
func (l *limiter) takeObject(typ uint32) error { return l.take(emptyBytes(typ), 1) }
func (l *limiter) giveObject(typ uint32)       { l.give(emptyBytes(typ), 1) }

func emptyBytes(typ uint32) int64 {
	if typ == unix.S_IFDIR {
		return dirBytes
	}
	return 0
}

// objectBytes returns what an object counts for.
func objectBytes(st *layer.Stat) int64 {
	if st.IsRegular() {
		return st.Blocks * 512
	}
	return emptyBytes(st.Type())
}

// settle corrects what was taken for data by what a file takes now. If that
// cannot be told, the estimate stays until the next mount.
func (l *limiter) settle(f layer.File, taken int64) (now int64) {
	if !l.on() {
		return taken
	}
	st, err := f.Stat()
	if err != nil {
		return taken
	}
	now = objectBytes(&st)
	l.give(taken-now, 0)
	return now
}

// freed gives back what an upper object took whose last name and last user have
// gone.
func (l *limiter) freed(n *Node) {
	if !l.on() || n.dir != nil || !n.has(stateOrphan) || !n.has(stateUpper) {
		return
	}
	n.mu.Lock()
	var o layer.Object
	if n.ext != nil {
		o = n.ext.pinObj // nil: it lost its name to a change of the layers, and is still there
	}
	n.mu.Unlock()
	if o == nil {
		return
	}
	// What cannot be told counts until the next mount.
	if st, err := o.Stat(); err == nil && st.Nlink == 0 {
		l.give(objectBytes(&st), 1)
	}
}

// around runs a change of a file whose data may then reach up to end, and
// counts what it really took. The change is refused if it might not fit.
func (l *limiter) around(f layer.File, end int64, change func() error) error {
	if l.maxBytes == 0 {
		return change()
	}
	before, err := f.Stat()
	if err != nil {
		return err
	}
	l.mu.Lock()
	room := l.maxBytes - l.bytes
	l.mu.Unlock()
	if end > 0 && sizeBlocks(end)-sizeBlocks(before.Size) > room {
		return unix.ENOSPC
	}
	err = change()
	grown := max(0, sizeBlocks(end)-sizeBlocks(before.Size)) // where it cannot be told
	if after, err := f.Stat(); err == nil {
		grown = (after.Blocks - before.Blocks) * 512
	}
	l.give(-grown, 0)
	return err
}

// sizeBlocks rounds a size up to what it takes on most filesystems.
func sizeBlocks(size int64) int64 { return (size + 4095) &^ 4095 }

// apply shows the bounds in the numbers of a filesystem.
func (l *limiter) apply(st *layer.Statfs) {
	if !l.on() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if unit := int64(st.Frsize); l.maxBytes > 0 && unit > 0 {
		free := uint64(max(0, l.maxBytes-l.bytes) / unit)
		st.Blocks = uint64(l.maxBytes / unit)
		st.Bfree, st.Bavail = min(st.Bfree, free), min(st.Bavail, free)
	}
	if l.maxInodes > 0 {
		st.Files = uint64(l.maxInodes)
		st.Ffree = min(st.Ffree, uint64(max(0, l.maxInodes-l.inodes)))
	}
}
