package devicemapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/devicemapper/loopdev"
	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/blockpool"
)

// A volumePool is a pool of lamina's in ROOT/pool, whose volumes its server shows as
// files in a directory that only it knows; a loop device makes a block device of one.
type volumePool struct {
	set    *settings
	place  poolserver.Place
	client *poolserver.Client
	dir    string // where the volumes are files; "": nowhere yet
}

// openVolumePool makes the pool unless it is there, and starts its server unless it
// runs. The lock of the root is held.
func openVolumePool(ctx context.Context, root string, set *settings, argv func(dir string) []string) (*volumePool, error) {
	p := &volumePool{set: set, place: poolserver.Place{Dir: filepath.Join(root, "pool")}}
	if err := p.make(); err != nil {
		return nil, err
	}
	var err error
	if argv == nil {
		p.client, err = p.place.Dial()
	} else {
		p.client, err = p.place.Connect(ctx, argv(p.place.Dir))
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// make makes the pool beside its place and renames it, so that what a crash leaves is
// never taken for it.
func (p *volumePool) make() error {
	if _, err := os.Stat(p.place.Dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fresh := poolserver.Place{Dir: p.place.Dir + ".new"}
	if err := os.RemoveAll(fresh.Dir); err != nil {
		return err
	}
	if err := os.Mkdir(fresh.Dir, 0o700); err != nil {
		return err
	}
	c, err := poolConfig(p.set)
	if err != nil {
		return err
	}
	c.Name = Name
	device := blockpool.DeviceSpec{Path: fresh.File(0), Size: p.set.dataSize}
	if p.set.dataDev != "" {
		device = blockpool.DeviceSpec{Path: p.set.dataDev}
	}
	o := blockpool.CreateOptions{Config: c, Metadata: []string{blockpool.ReplicaName(fresh.Dir, 0)}, Devices: []blockpool.DeviceSpec{device}}
	if err := blockpool.Create(o); err != nil {
		return err
	}
	return os.Rename(fresh.Dir, p.place.Dir)
}

// volumeName is what the device of a number is called.
func volumeName(id uint32) string { return fmt.Sprintf("dev-%d", id) }

// The pool is this root's alone.
func (*volumePool) firstNumber() uint32                         { return 1 }
func (*volumePool) holds(context.Context, uint32) (bool, error) { return false, nil }

func (p *volumePool) create(ctx context.Context, id uint32, size int64) error {
	_, err := poolserver.VolumeCreate.Call(ctx, p.client, poolserver.CreateVolume{Name: volumeName(id), Size: size})
	return err
}

func (p *volumePool) snapshot(ctx context.Context, id, of uint32, size int64) error {
	_, err := poolserver.VolumeClone.Call(ctx, p.client, poolserver.FromTo{From: volumeName(of), To: volumeName(id)})
	if err != nil {
		return err
	}
	return p.resize(ctx, id, size)
}

// resize makes a volume as large as it is to be. None gets smaller.
func (p *volumePool) resize(ctx context.Context, id uint32, size int64) error {
	_, err := poolserver.VolumeResize.Call(ctx, p.client, poolserver.ResizeVolume{Name: volumeName(id), Size: size})
	return err
}

func (p *volumePool) remove(ctx context.Context, id uint32, _ int64) error {
	if err := p.gone(id); err != nil {
		return err
	}
	_, err := poolserver.VolumeDestroy.Call(ctx, p.client, poolserver.Name{Name: volumeName(id)})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// file returns where a volume is a file, and has the server show it if need be.
func (p *volumePool) file(ctx context.Context, id uint32) (string, error) {
	if p.dir == "" {
		e, err := poolserver.ExportMount.Call(ctx, p.client, poolserver.Mount{})
		if err != nil {
			return "", err
		}
		p.dir = e.Target
	}
	return filepath.Join(p.dir, volumeName(id)), nil
}

func (p *volumePool) activate(ctx context.Context, id uint32, size int64) (device, error) {
	file, err := p.file(ctx, id)
	if err != nil {
		return device{}, err
	}
	if p.set.backing == backingFuse2fs {
		return device{file, func() error { return nil }}, p.fits(ctx, id, file, size)
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		// One that is there is the only one that may be: two over a file would each have
		// a cache of their own.
		over, err := loopdev.Over(file)
		if err != nil {
			return device{}, err
		}
		if len(over) == 0 {
			break
		}
		l, err := loopdev.Join(over[0], file)
		if err == nil {
			return device{l.Path(), l.Close}, nil
		}
		if !errors.Is(err, unix.ENXIO) || time.Now().After(end) {
			return device{}, err
		}
	}
	if err := p.fits(ctx, id, file, size); err != nil {
		return device{}, err
	}
	l, err := loopdev.Attach(file, loopdev.Options{Direct: true})
	if err != nil {
		return device{}, err
	}
	return device{l.Path(), l.Close}, nil
}

// fits makes a volume larger that is not as large as it is to be.
func (p *volumePool) fits(ctx context.Context, id uint32, file string, size int64) error {
	st, err := os.Stat(file)
	if err != nil || st.Size() >= size {
		return err
	}
	return p.resize(ctx, id, size)
}

// gone waits until no loop device is over a volume, and nobody serves it.
func (p *volumePool) gone(id uint32) error {
	if p.set.backing == backingFuse2fs {
		return unserved(filepath.Join(filepath.Dir(p.place.Dir), "devices", strconv.FormatUint(uint64(id), 10)))
	}
	if p.dir == "" {
		// Not shown by this process, perhaps by another.
		list, err := poolserver.ExportList.Call(context.Background(), p.client, poolserver.None{})
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Kind == poolserver.ExportFUSE && e.Private {
				p.dir = e.Target
			}
		}
		if p.dir == "" {
			return nil
		}
	}
	err := loopdev.WaitFree(filepath.Join(p.dir, volumeName(id)), patience)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (p *volumePool) idle(ctx context.Context, id uint32, _ int64) error {
	if err := p.gone(id); err != nil {
		return err
	}
	_, err := poolserver.PoolSync.Call(ctx, p.client, poolserver.None{})
	return err
}

func (p *volumePool) look(ctx context.Context) (poolserver.Status, error) {
	return poolserver.PoolStatus.Call(ctx, p.client, poolserver.None{})
}

func (p *volumePool) space(ctx context.Context) (space, error) {
	st, err := p.look(ctx)
	if err != nil {
		return space{}, err
	}
	return space{dataUsed: st.Usable.Used, dataTotal: st.Usable.Size}, nil
}

func (p *volumePool) status(ctx context.Context) ([]driver.Field, error) {
	st, err := p.look(ctx)
	if err != nil {
		return nil, err
	}
	return []driver.Field{
		{Name: "Pool Name", Value: st.Name},
		{Name: "Pool Blocksize", Value: human(st.RecordSize)},
		{Name: "Data file", Value: p.place.Dir},
	}, nil
}

// close lets the server go: when no device is left, and nobody is connected, it ends.
func (p *volumePool) close() error { return p.client.Close() }
