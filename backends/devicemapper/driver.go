package devicemapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
)

// Name is the driver's.
const Name = "devicemapper"

// volumes is the driver over a pool of thin devices with a filesystem each.
type volumes struct {
	root     string
	choice   driver.Choice
	set      settings
	format   format
	pool     pool
	steps    func(string)
	volatile bool
}

var _ driver.Driver = (*volumes)(nil)

// format is the file lamina.json. What is decided when the directory, or its base
// device, is made holds for all of its layers.
type format struct {
	Version    int           `json:"version"`
	Driver     string        `json:"driver"`
	Engine     driver.Engine `json:"engine"`
	BlockSize  int64         `json:"block_size"` // of the pool
	Filesystem string        `json:"filesystem,omitempty"`
	Base       uint32        `json:"base,omitempty"` // the number of the base device, 0: it is not made yet
	BaseSize   int64         `json:"base_size,omitempty"`
}

const (
	formatFile = "lamina.json"
	version    = 1
)

// Open opens the directory of a devicemapper driver, starts its pool and sweeps what
// crashes have left. The directory is made if its parent exists.
func Open(cfg driver.Config) (driver.Driver, error) {
	set, err := parseOptions(cfg.Options)
	if err != nil {
		return nil, err
	}
	obstacles := []string(nil)
	if cfg.Engine != driver.Userspace {
		obstacles = nativeObstacles(set.dataDev == "" && set.thinPool == "")
	}
	choice, err := driver.Choose(cfg.Engine, obstacles...)
	if err == nil && choice.Engine == driver.Userspace {
		err = fmt.Errorf("the userspace engine of %s is %w", Name, driver.ErrUnsupported)
	}
	if err != nil {
		return nil, &driver.Error{Driver: Name, Op: "open", Cause: err}
	}
	choice.Fallback = false
	d := &volumes{choice: choice, set: set, steps: cfg.Step, volatile: cfg.Volatile}
	if d.steps == nil {
		d.steps = func(string) {}
	}
	if d.root, err = filepath.Abs(cfg.Root); err == nil {
		err = d.open()
	}
	if err != nil {
		return nil, d.fail("open", "", err, "")
	}
	if _, err = d.Cleanup(context.Background()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// open makes the directory, or checks that it is one of this driver and engine, and
// opens the pool.
func (d *volumes) open() error {
	for _, dir := range []string{"", "tmp", "mounts", "mnt", "metadata", "devices"} {
		if err := os.Mkdir(d.path(dir), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return d.locked(func() error {
		err := readJSON(d.path(formatFile), &d.format)
		isNew := errors.Is(err, os.ErrNotExist)
		switch {
		case isNew:
			d.format = format{Version: version, Driver: Name, Engine: d.choice.Engine, BlockSize: d.set.blockSize}
		case err != nil:
			return err
		case d.format.Version != version:
			return fmt.Errorf("%s: version %d, this program knows %d", d.path(formatFile), d.format.Version, version)
		case d.format.Driver != Name:
			return fmt.Errorf("%s holds the layers of driver %s", d.root, d.format.Driver)
		case d.format.Engine != d.choice.Engine:
			return fmt.Errorf("%s holds the layers of the %s engine, which keeps them in another way: the %s engine is %w there", d.root, d.format.Engine, d.choice.Engine, driver.ErrUnsupported)
		}
		pool, err := openThinPool(d.root, &d.set, d.format.BlockSize, isNew)
		if err != nil {
			return err
		}
		d.pool = pool
		if isNew {
			return replaceJSON(d.path(formatFile), &d.format)
		}
		return nil
	})
}

// base makes the base device unless there is one, and has it be as large as asked for.
// The lock is held.
//
// Crash on the way: a device that no record speaks of, swept.
func (d *volumes) base(ctx context.Context) error {
	if err := readJSON(d.path(formatFile), &d.format); err != nil { // another process may have made it
		return err
	}
	switch {
	case d.format.Base != 0 && d.set.baseSize <= d.format.BaseSize:
		return nil
	case d.format.Base != 0:
		return d.growBase(ctx)
	}
	fstype := d.set.filesystem
	if fstype == "" {
		fstype = chooseFilesystem()
	}
	if o := filesystemObstacle(fstype); o != "" {
		return errors.New(o)
	}
	id, err := d.newDevice("base")
	if err != nil {
		return err
	}
	size := d.set.baseSize
	if err := d.pool.create(ctx, id, size); err != nil {
		return err
	}
	dev, err := d.pool.activate(ctx, id, size)
	if err != nil {
		return err
	}
	err = makeFilesystem(fstype, dev.path, d.set.mkfsArgs)
	if err == nil {
		err = d.borrow(dev.path, fstype, false, func(dir string) error { return os.Mkdir(filepath.Join(dir, rootDir), 0o755) })
	}
	if err := errors.Join(err, dev.release()); err != nil {
		return fmt.Errorf("base device: %w", err)
	}
	if err := d.pool.idle(ctx, id, size); err != nil {
		return err
	}
	d.format.Base, d.format.BaseSize, d.format.Filesystem = id, size, fstype
	return replaceJSON(d.path(formatFile), &d.format)
}

// growBase makes the base device and its filesystem larger, for layers to come.
//
// Crash on the way: a filesystem that is smaller than its device, or a device larger
// than the record says; the next one does it again.
func (d *volumes) growBase(ctx context.Context) error {
	if err := d.grow(ctx, d.format.Base, d.set.baseSize); err != nil {
		return fmt.Errorf("dm.basesize: base device: %w", err)
	}
	d.format.BaseSize = d.set.baseSize
	return replaceJSON(d.path(formatFile), &d.format)
}

// grow has the filesystem of a device that is not mounted take all of size.
func (d *volumes) grow(ctx context.Context, id uint32, size int64) error {
	dev, err := d.pool.activate(ctx, id, size)
	if err != nil {
		return err
	}
	err = d.borrow(dev.path, d.format.Filesystem, false, func(dir string) error { return growFilesystem(d.format.Filesystem, dir, size) })
	if err := errors.Join(err, dev.release()); err != nil {
		return err
	}
	return d.pool.idle(ctx, id, size)
}

// borrow mounts a device for as long as use takes. The lock is held.
func (d *volumes) borrow(dev, fstype string, readOnly bool, use func(dir string) error) error {
	dir, err := os.MkdirTemp(d.path("tmp"), "mount-")
	if err != nil {
		return err
	}
	defer os.Remove(dir) // else swept
	if err := mountDevice(dev, dir, fstype, readOnly, d.set.mountOptions); err != nil {
		return err
	}
	err = use(dir)
	if e := unix.Unmount(dir, unix.MNT_DETACH); err == nil && e != nil {
		err = os.NewSyscallError("umount "+dir, e)
	}
	return err
}

// Name returns the driver's.
func (d *volumes) Name() string { return Name }

// Engine says what shows the layers, and why.
func (d *volumes) Engine() driver.Choice { return d.choice }

// Capabilities says what can be done here.
func (d *volumes) Capabilities() driver.Capabilities {
	return driver.Capabilities{Size: true, Shares: true, KeepsOwners: true, ArbitraryTargets: true}
}

// Close lets go of the pool, which goes with the last who uses it.
func (d *volumes) Close() error {
	if d.pool == nil {
		return nil
	}
	return d.fail("close", "", d.pool.close(), "")
}

func (d *volumes) path(elem ...string) string {
	return filepath.Join(append([]string{d.root}, elem...)...)
}

// fail makes an error of this driver out of a cause.
func (d *volumes) fail(op, id string, err error, next string) error {
	if err == nil {
		return nil
	}
	var known *driver.Error
	if errors.As(err, &known) {
		return err
	}
	return &driver.Error{Driver: Name, Op: op, Layer: id, Cause: err, Next: next}
}

// tick is how far behind the clock the times may be that the kernel gives to inodes:
// they are those of its last timer interrupt.
const tick = 20 * time.Millisecond
