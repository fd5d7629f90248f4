package union

import (
	"bytes"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// appendFile is an append-only file (chattr +a), which can only be opened for
// writing with O_APPEND. Such a descriptor writes at the end whatever offset it
// is given, and requests have offsets: those of write-back begin in what the
// file holds already.
type appendFile struct {
	layer.File
	mu sync.Mutex // between looking at the size and writing
}

// WriteAt adds what lies beyond the end of the file. EPERM tells that p would
// change what the file holds, or leave a hole.
func (f *appendFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if off > st.Size {
		return 0, unix.EPERM
	}
	held := min(st.Size-off, int64(len(p)))
	old := make([]byte, held)
	if n, err := f.ReadAt(old, off); err != nil {
		return 0, err
	} else if !bytes.Equal(old[:n], p[:held]) {
		return 0, unix.EPERM
	}
	if held == int64(len(p)) {
		return len(p), nil
	}
	n, err := f.File.WriteAt(p[held:], st.Size)
	return int(held) + n, err
}

// CopyRangeFrom leaves copying to who can say where it goes.
func (f *appendFile) CopyRangeFrom(layer.File, int64, int64, int) (int, error) {
	return 0, unix.EOPNOTSUPP
}

// readable returns the file itself, which other files' methods want to see.
func readable(f layer.File) layer.File {
	if a, ok := f.(*appendFile); ok {
		return a.File
	}
	return f
}
