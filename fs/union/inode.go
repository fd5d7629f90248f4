package union

import (
	"math"
	"sync"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// inoShift leaves 56 bits to a filesystem's own inode numbers. The bits above
// tell the filesystems of a stack apart, as the kernel's xino does
// (Documentation/filesystems/overlayfs.rst, "inode properties").
const inoShift = 56

// inoSpace makes the inode numbers of several filesystems one space. With one
// filesystem the numbers stay what they are. Filesystems are numbered in the
// order of the stack, so the same stack shows the same numbers again.
type inoSpace struct {
	fold  bool // into 32 bits
	mu    sync.RWMutex
	devs  map[uint64]uint64   // device → number
	uuids map[[16]byte]uint64 // filesystem → device
	byDev map[uint64][16]byte // device → filesystem
	types map[[16]byte]int64  // filesystem → its magic number
}

func (s *inoSpace) addBranch(b *branch) error {
	h := b.root.pin.Load()
	st, err := h.obj.Stat()
	if err != nil {
		return err
	}
	s.device(st.Dev)
	uuid := h.obj.UUID()
	statfs, err := h.obj.Statfs()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uuids == nil {
		s.uuids = map[[16]byte]uint64{}
		s.byDev = map[uint64][16]byte{}
		s.types = map[[16]byte]int64{}
	}
	s.byDev[st.Dev] = uuid
	if _, known := s.uuids[uuid]; !known {
		s.uuids[uuid] = st.Dev
		s.types[uuid] = statfs.Type
	}
	return nil
}

// encode returns the kernel's form of the file handle of an inode on a device.
func (s *inoSpace) encode(dev uint64, h layer.FileHandle) (whiteout.FileHandle, error) {
	return whiteout.NewFileHandle(s.uuidOf(dev), h.Type, h.Bytes, false)
}

// uuidOf returns the identity of the filesystem on a device, zero if no layer's
// root lies on it.
func (s *inoSpace) uuidOf(dev uint64) [16]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byDev[dev]
}

func (s *inoSpace) device(dev uint64) uint64 {
	s.mu.RLock()
	n, ok := s.devs[dev]
	s.mu.RUnlock()
	if ok {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.devs == nil {
		s.devs = map[uint64]uint64{}
	}
	if n, ok = s.devs[dev]; !ok {
		n = uint64(len(s.devs))
		s.devs[dev] = n
	}
	return n
}

// compose returns the number shown for an inode of a device.
func (s *inoSpace) compose(dev, ino uint64) uint64 {
	if n := s.device(dev); n != 0 {
		ino ^= n << inoShift
	}
	if s.fold {
		ino = ino&math.MaxUint32 ^ ino>>32
	}
	return ino
}

// fromOrigin returns the number of the lower inode that an upper object was
// copied from, false where its handle does not tell or is of no layer's
// filesystem.
func (s *inoSpace) fromOrigin(fh *whiteout.FileHandle) (uint64, bool) {
	if fh == nil {
		return 0, false
	}
	s.mu.RLock()
	dev, known := s.uuids[fh.UUID]
	fsType := s.types[fh.UUID]
	s.mu.RUnlock()
	if !known {
		return 0, false
	}
	ino, ok := fh.InodeOn(fsType)
	if !ok {
		return 0, false
	}
	return s.compose(dev, ino), true
}
