package union

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// limiter bounds what the upper may hold: bytes as they are allocated, and
// objects. Without bounds it costs nothing.
type limiter struct {
	mu                sync.Mutex
	maxBytes, bytes   int64
	maxInodes, inodes int64
}

func (l *limiter) on() bool { return l.maxBytes > 0 || l.maxInodes > 0 }

// start sets the bounds and counts what the upper holds already.
func (l *limiter) start(maxBytes, maxInodes int64, upper layer.Dir) error {
	l.maxBytes, l.maxInodes = maxBytes, maxInodes
	if !l.on() {
		return nil
	}
	return l.count(upper, map[uint64]bool{})
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
		if st.IsWhiteoutDevice() {
			continue
		}
		if st.Nlink > 1 && !st.IsDir() {
			if seen[st.Ino] {
				continue
			}
			seen[st.Ino] = true
		}
		l.bytes += st.Blocks * 512
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

func (l *limiter) takeInode() error { return l.take(0, 1) }
func (l *limiter) giveInode()       { l.give(0, 1) }

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
	if grows := sizeBlocks(end) - sizeBlocks(before.Size); end > 0 && grows > room {
		return unix.ENOSPC
	}
	err = change()
	after, err2 := f.Stat()
	if err2 != nil {
		return err2
	}
	l.mu.Lock()
	l.bytes += (after.Blocks - before.Blocks) * 512
	l.mu.Unlock()
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
