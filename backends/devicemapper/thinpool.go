package devicemapper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/devicemapper/dm"
	"github.com/laminafs/lamina/backends/devicemapper/loopdev"
)

// A thinPool is one of the kernel's dm-thin. Its device, and the loop devices below
// it, live for as long as some process has the driver open or some layer is in use;
// then the kernel takes them away by itself.
type thinPool struct {
	control  *dm.Control
	set      *settings
	root     string
	name     string // of the pool's device
	prefix   string // of the names of its thin devices
	number   string // of the pool, as tables name it
	hold     *os.File
	borrowed bool // it is another's, and stays
}

// patience is how long a device that is going away is waited for; shorter in tests.
var patience = 10 * time.Second

// nativeObstacles says why dm-thin cannot be had here, for a pool in files when inFiles.
func nativeObstacles(inFiles bool) []string {
	if unix.Geteuid() != 0 {
		return []string{"device-mapper is for root; other users have --engine=userspace"}
	}
	control, err := dm.Open()
	if err != nil {
		return []string{fmt.Sprintf("device-mapper is not to be had: %v; load it with: modprobe dm-thin-pool", err)}
	}
	defer control.Close()
	targets, err := control.Targets()
	if err != nil {
		return []string{err.Error()}
	}
	if _, ok := targets["thin-pool"]; !ok {
		if err := control.Load("thin-pool"); err != nil {
			return []string{fmt.Sprintf("the kernel's device-mapper has no thin-pool (%v); load it with: modprobe dm-thin-pool", err)}
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil && inFiles {
		return []string{fmt.Sprintf("there are no loop devices: %v; load them with: modprobe loop", err)}
	}
	return nil
}

// openThinPool starts the pool of a root, or joins those who have it. The lock of the
// root is held.
func openThinPool(root string, set *settings, blockSize int64, isNew bool) (*thinPool, error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	p := &thinPool{set: set, root: root, prefix: fmt.Sprintf("lamina-%d:%d-%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)}
	p.name, p.borrowed = p.prefix+"-pool", set.thinPool != ""
	if p.borrowed {
		p.name = set.thinPool
	}
	var err error
	if p.control, err = dm.Open(); err != nil {
		return nil, err
	}
	if err := p.start(blockSize, isNew); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *thinPool) start(blockSize int64, isNew bool) error {
	if p.borrowed {
		kind, _, err := p.control.Table(p.name)
		if err != nil || kind != "thin-pool" {
			return fmt.Errorf("dm.thinpooldev %s is no thin pool (%s, %v); see what there is with: dmsetup ls --target thin-pool", p.name, kind, err)
		}
		return p.join()
	}
	// A pool that is going away is there until it is gone, or free for the taking.
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := p.join()
		if !errors.Is(err, unix.ENXIO) && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		err = p.make(blockSize, isNew)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// join opens the device of the pool that is there, so that it stays, and has it go
// with the last who does. ENXIO tells that there is none.
func (p *thinPool) join() error {
	i, err := p.control.Info(p.name)
	if err != nil {
		return err
	}
	f, err := os.Open(i.Node())
	if err != nil {
		return err
	}
	if again, err := p.control.Info(p.name); err != nil || again.Number() != i.Number() {
		f.Close() // of another device that has its number now
		return errors.Join(err, unix.ENXIO)
	}
	p.hold, p.number = f, i.Number()
	if p.borrowed {
		return nil
	}
	return p.control.Remove(p.name, true)
}

// make starts the pool from its files or devices.
func (p *thinPool) make(blockSize int64, isNew bool) error {
	metadata, data := p.set.metadataDev, p.set.dataDev
	if data == "" {
		dir := filepath.Join(p.root, "devicemapper")
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		for _, f := range []struct {
			dev  *string
			name string
			size int64
		}{{&metadata, "metadata", p.set.metadataSize}, {&data, "data", p.set.dataSize}} {
			l, err := attachFile(filepath.Join(dir, f.name), f.size)
			if err != nil {
				return err
			}
			defer l.Close() // the pool has it then
			*f.dev = l.Path()
		}
	} else if isNew {
		if err := isBlank(metadata); err != nil {
			return err
		}
	}
	size, err := deviceSize(data)
	if err != nil {
		return err
	}
	sectors := uint64(blockSize) / dm.SectorSize
	// Blocks are not zeroed: what a filesystem has not written it does not show.
	params := fmt.Sprintf("%s %s %d %d 1 skip_block_zeroing", metadata, data, sectors, lowWater)
	if _, err := p.control.Create(p.name, dm.Target{Sectors: uint64(size) / dm.SectorSize, Type: "thin-pool", Params: params}, false); err != nil {
		return err
	}
	return p.join()
}

// lowWater is the number of free blocks at which the kernel tells dmeventd.
const lowWater = 32768

// attachFile makes a loop device of a sparse file, which is made or grows if need be.
// The device of a pool that is ending must be gone first: it may still write.
func attachFile(path string, size int64) (*loopdev.Loop, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() < size {
		err = f.Truncate(size)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := loopdev.WaitFree(path, patience); err != nil {
		return nil, err
	}
	return loopdev.Attach(path, loopdev.Options{Direct: true})
}

// isBlank refuses a metadata device that the kernel would take for a pool's. It reads
// past the page cache, which does not see what a pool writes to its devices.
func isBlank(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	head, err := unix.Mmap(-1, 0, metadataBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // aligned, as O_DIRECT wants it
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer unix.Munmap(head)
	if _, err := f.ReadAt(head, 0); err != nil {
		return err
	}
	if len(bytes.Trim(head, "\x00")) > 0 {
		return fmt.Errorf("dm.metadatadev %s is not empty; if nothing on it is needed: dd if=/dev/zero of=%s bs=4096 count=1", path, path)
	}
	return nil
}

func deviceSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, 2)
}

// thinName is the name of a device.
func (p *thinPool) thinName(id uint32) string { return fmt.Sprintf("%s-%d", p.prefix, id) }

// firstNumber is a random one in a pool that others use too: then two roots that begin
// at the same time do not look at the same numbers.
func (p *thinPool) firstNumber() uint32 {
	if p.borrowed {
		return 1 + rand.Uint32N(maxDevice)
	}
	return 1
}

// holds has the kernel open a thin device of that number, which no message asks for.
func (p *thinPool) holds(_ context.Context, id uint32) (bool, error) {
	if !p.borrowed {
		return false, nil
	}
	name := p.thinName(id) + "-probe"
	err := p.control.Remove(name, true) // of a process that was killed
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return false, err
	}
	_, err = p.control.Create(name, dm.Target{Sectors: minBlockSize / dm.SectorSize, Type: "thin", Params: fmt.Sprintf("%s %d", p.number, id)}, true)
	if errors.Is(err, unix.ENODATA) { // dm_pool_open_thin_device of one that is not there
		return false, nil
	}
	if err == nil {
		err = p.control.Remove(name, true)
	}
	return true, err
}

func (p *thinPool) create(_ context.Context, id uint32, _ int64) error {
	return p.control.Message(p.name, fmt.Sprintf("create_thin %d", id))
}

func (p *thinPool) snapshot(_ context.Context, id, of uint32, _ int64) error {
	return p.control.While(p.thinName(of), func() error {
		return p.control.Message(p.name, fmt.Sprintf("create_snap %d %d", id, of))
	})
}

func (p *thinPool) remove(ctx context.Context, id uint32, size int64) error {
	if err := p.gone(id); err != nil {
		return err
	}
	if p.discards() {
		// What cannot be given back stays the pool's, which the device is deleted from
		// all the same.
		if dev, err := p.activate(ctx, id, size); err == nil {
			_ = discard(dev.path, size)
			if err := errors.Join(dev.release(), p.gone(id)); err != nil {
				return err
			}
		}
	}
	// A device lets go of its metadata a moment after its name is gone.
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := p.control.Message(p.name, fmt.Sprintf("delete %d", id))
		switch {
		case errors.Is(err, unix.ENODATA): // dm_pool_delete_thin_device of one that is not there
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
			return err
		}
	}
}

func (p *thinPool) discards() bool {
	if p.set.discard != nil {
		return *p.set.discard
	}
	return !p.borrowed && p.set.dataDev == ""
}

// discard gives all of a device back.
func discard(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return blkDiscard(f, 0, uint64(size))
}

func (p *thinPool) activate(_ context.Context, id uint32, size int64) (device, error) {
	name := p.thinName(id)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		i, err := p.control.Info(name)
		if errors.Is(err, unix.ENXIO) {
			i, err = p.control.Create(name, dm.Target{Sectors: uint64(size) / dm.SectorSize, Type: "thin", Params: fmt.Sprintf("%s %d", p.number, id)}, false)
		}
		if err != nil {
			return device{}, err
		}
		f, err := os.Open(i.Node())
		if err == nil {
			return device{i.Node(), func() error { return p.release(f, name) }}, nil
		}
		if time.Now().After(end) || !errors.Is(err, unix.ENXIO) && !errors.Is(err, os.ErrNotExist) {
			return device{}, err
		}
		// It went away meanwhile, or its node is about to come.
	}
}

// release lets go of an active device. Where removal may not be deferred it stays
// while it is in use, until somebody asks for it to be gone.
func (p *thinPool) release(f *os.File, name string) error {
	if p.set.deferRemove {
		return errors.Join(p.control.Remove(name, true), f.Close())
	}
	f.Close()
	if err := p.control.Remove(name, false); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// gone waits until a device is not active.
func (p *thinPool) gone(id uint32) error {
	name := p.thinName(id)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		i, err := p.control.Info(name)
		switch {
		case errors.Is(err, unix.ENXIO):
			return nil
		case err != nil:
			return err
		case i.Open == 0:
			if err := p.control.Remove(name, false); err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.EBUSY) {
				return err
			}
		case time.Now().After(end):
			return fmt.Errorf("%s is in use: %w; see who uses it with: lsof %s", i.Node(), unix.EBUSY, i.Node())
		}
	}
}

func (p *thinPool) idle(ctx context.Context, id uint32, size int64) error {
	if err := p.gone(id); err != nil {
		return err
	}
	dev, err := p.activate(ctx, id, size)
	if err != nil {
		return err
	}
	return errors.Join(flush(dev.path), dev.release(), p.gone(id))
}

// flush has the pool commit what it knows of a device.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (p *thinPool) close() error {
	var err error
	if p.hold != nil {
		err = p.hold.Close()
	}
	return errors.Join(err, p.control.Close())
}
