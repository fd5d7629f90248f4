// Package servetest serves sparse files as volumes, for tests and measurements of
// what is built on package serve.
package servetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/serve"
)

// Volumes is a directory of sparse files. A name with "@" is a snapshot, and
// read-only.
type Volumes struct {
	Flushes, Discards, Zeros atomic.Int64
	Discarded                atomic.Int64 // bytes
	Opened                   atomic.Int64 // volumes that are open now

	changes atomic.Uint64 // of any volume

	dir       string
	blockSize int64

	mu     sync.Mutex
	infos  map[string]serve.VolumeInfo
	lastID uint64
}

var (
	_ serve.Volumes      = (*Volumes)(nil)
	_ serve.Capacity     = (*Volumes)(nil)
	_ serve.Allocator    = (*Block)(nil)
	_ serve.WatchedBlock = (*Block)(nil)
)

// New returns volumes whose files lie in dir, none at first. blockSize is the
// [serve.VolumeInfo.BlockSize] of all.
func New(dir string, blockSize int64) *Volumes {
	return &Volumes{dir: dir, blockSize: blockSize, infos: map[string]serve.VolumeInfo{}}
}

// Create makes a volume of size bytes that reads as zeros.
func (v *Volumes) Create(name string, size int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.infos[name]; ok {
		return fmt.Errorf("create volume %s: %w", name, unix.EEXIST)
	}
	v.lastID++
	info := serve.VolumeInfo{
		ID: v.lastID, Name: name, Size: size, BlockSize: v.blockSize,
		ReadOnly: strings.Contains(name, "@"), Created: time.Now(),
	}
	f, err := os.OpenFile(v.file(info.ID), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	v.infos[name] = info
	return nil
}

// Remove destroys a volume; what is open of it goes on.
func (v *Volumes) Remove(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	info, ok := v.infos[name]
	if !ok {
		return fmt.Errorf("remove volume %s: %w", name, unix.ENOENT)
	}
	delete(v.infos, name)
	return os.Remove(v.file(info.ID))
}

// Resize changes the size of a volume that nobody has open.
func (v *Volumes) Resize(name string, size int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	info, ok := v.infos[name]
	if !ok {
		return fmt.Errorf("resize volume %s: %w", name, unix.ENOENT)
	}
	info.Size = size
	v.infos[name] = info
	v.changes.Add(1)
	return os.Truncate(v.file(info.ID), size)
}

func (v *Volumes) file(id uint64) string { return filepath.Join(v.dir, fmt.Sprintf("%d.volume", id)) }

// List implements [serve.Volumes].
func (v *Volumes) List() ([]serve.VolumeInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []serve.VolumeInfo
	for _, info := range v.infos {
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b serve.VolumeInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Stat implements [serve.Volumes].
func (v *Volumes) Stat(name string) (serve.VolumeInfo, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	info, ok := v.infos[name]
	if !ok {
		return info, unix.ENOENT
	}
	var st unix.Stat_t
	if err := unix.Stat(v.file(info.ID), &st); err != nil {
		return info, os.NewSyscallError("stat", err)
	}
	info.Used = st.Blocks * 512
	return info, nil
}

// Open implements [serve.Volumes].
func (v *Volumes) Open(name string) (serve.Block, error) {
	info, err := v.Stat(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(v.file(info.ID), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	v.Opened.Add(1)
	return &Block{File: f, all: v, size: info.Size, readOnly: info.ReadOnly}, nil
}

// Capacity implements [serve.Capacity].
func (v *Volumes) Capacity() (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(v.dir, &st); err != nil {
		return 0, 0, os.NewSyscallError("statfs", err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// A Block is an open file.
type Block struct {
	*os.File
	all      *Volumes
	size     int64
	readOnly bool
}

// ReadOnly implements [serve.ReadOnlyBlock].
func (b *Block) ReadOnly() bool { return b.readOnly }

// WriteAt implements [serve.Block].
func (b *Block) WriteAt(p []byte, off int64) (int, error) {
	defer b.all.changes.Add(1)
	return b.File.WriteAt(p, off)
}

// Watch implements [serve.WatchedBlock]. Only the one mount changes the files.
func (b *Block) Watch(func(off, n int64)) {}

// Changes implements [serve.WatchedBlock].
func (b *Block) Changes() uint64 { return b.all.changes.Load() }

// Size implements [serve.Block].
func (b *Block) Size() int64 { return b.size }

// Zero implements [serve.Block].
func (b *Block) Zero(_ context.Context, off, n int64) error {
	b.all.Zeros.Add(1)
	return b.fallocate(unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// Discard implements [serve.Block].
func (b *Block) Discard(_ context.Context, off, n int64) error {
	b.all.Discards.Add(1)
	b.all.Discarded.Add(n)
	return b.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (b *Block) fallocate(mode uint32, off, n int64) error {
	defer b.all.changes.Add(1)
	err := unix.Fallocate(int(b.Fd()), mode, off, n)
	if err == unix.EOPNOTSUPP { // tmpfs has no FALLOC_FL_ZERO_RANGE
		err = unix.Fallocate(int(b.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	return os.NewSyscallError("fallocate", err)
}

// Flush implements [serve.Block].
func (b *Block) Flush(context.Context) error {
	b.all.Flushes.Add(1)
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(b.Fd())))
}

// Allocated implements [serve.Allocator].
func (b *Block) Allocated(off, n int64) (length int64, hole bool, err error) {
	data, err := unix.Seek(int(b.Fd()), off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return n, true, nil
	case err != nil:
		return 0, false, os.NewSyscallError("lseek", err)
	case data > off:
		return min(data-off, n), true, nil
	}
	end, err := unix.Seek(int(b.Fd()), off, unix.SEEK_HOLE)
	if err != nil {
		return 0, false, os.NewSyscallError("lseek", err)
	}
	return min(end-off, n), false, nil
}

// Close implements [io.Closer].
func (b *Block) Close() error {
	b.all.Opened.Add(-1)
	return b.File.Close()
}
