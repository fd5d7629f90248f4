package devicemapper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/datasets"
	"github.com/laminafs/lamina/backends/driver/rootdir"
	"github.com/laminafs/lamina/fs/fusefs/control"
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
	Backing    string        `json:"backing,omitempty"` // of the userspace engine, "": loop
}

const (
	formatFile = "lamina.json"
	version    = 1
)

// Open opens the directory of a devicemapper driver, starts its pool and sweeps what
// crashes have left. The directory is made if its parent exists, and what keeps its
// layers is decided then.
func Open(cfg driver.Config) (driver.Driver, error) {
	set, err := parseOptions(cfg.Options)
	if err != nil {
		return nil, err
	}
	found, err := lookAt(cfg.Root)
	if err != nil {
		return nil, &driver.Error{Driver: Name, Op: "open", Cause: err}
	}
	choice, err := choose(cfg.Engine, &set, found)
	if err != nil {
		return nil, &driver.Error{Driver: Name, Op: "open", Cause: err}
	}
	if choice.Engine == driver.Userspace && set.backing == backingDataset {
		return openDatasets(cfg, set, choice)
	}
	d := &volumes{choice: choice, set: set, steps: cfg.Step, volatile: cfg.Volatile}
	if d.steps == nil {
		d.steps = func(string) {}
	}
	if d.root, err = filepath.Abs(cfg.Root); err == nil {
		err = d.open(cfg.PoolServer)
	}
	if err != nil {
		return nil, d.fail("open", "", err, "")
	}
	if _, err = d.Cleanup(context.Background()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// A found root is what keeps the layers of a directory that is there.
type found struct {
	engine  driver.Engine // "": there is none
	backing string
}

func lookAt(root string) (f found, err error) {
	is, made, err := datasets.IsRoot(root)
	if err != nil || !made {
		return f, err
	}
	if is {
		return found{driver.Userspace, backingDataset}, nil
	}
	var of format
	if err := readJSON(filepath.Join(root, formatFile), &of); err != nil {
		return f, err
	}
	return found{of.Engine, cmp.Or(of.Backing, backingLoop)}, nil
}

// choose picks the engine, and in the settings what backs devices in userspace: what a
// root has that is there, else the best that works here.
func choose(want driver.Engine, set *settings, f found) (driver.Choice, error) {
	var obstacles []string
	switch {
	case want == driver.Userspace:
	case f.engine == driver.Userspace:
		obstacles = []string{"the layers here were made by the userspace engine; lamina layer convert moves layers"}
	case set.backing != "" && f.engine == "":
		obstacles = []string{"dm.backing=" + set.backing + " is of the userspace engine"}
	default:
		obstacles = nativeObstacles(set.dataDev == "" && set.thinPool == "")
	}
	choice, err := driver.Choose(want, obstacles...)
	if err != nil {
		return choice, err
	}
	choice.Fallback = false
	if choice.Engine == driver.Native {
		return choice, nil
	}
	if f.engine == driver.Native {
		return choice, fmt.Errorf("the layers here were made by the native engine, and the userspace engine is %w for them: %s", driver.ErrUnsupported, choice.Why)
	}
	obstacle := loopObstacle()
	switch {
	case f.backing != "" && set.backing != "" && set.backing != f.backing:
		return choice, fmt.Errorf("dm.backing=%s is %w here: the devices were made as %s", set.backing, driver.ErrUnsupported, f.backing)
	case f.backing != "":
		set.backing = f.backing
	case set.backing == "" && obstacle == "":
		set.backing = backingLoop
	case set.backing == "":
		set.backing = backingDataset
		choice.Why += "; devices are datasets: " + obstacle
	}
	if set.backing == backingFuse2fs {
		return choice, fuse2fsCan(set)
	}
	if set.backing == backingLoop && obstacle != "" {
		return choice, fmt.Errorf("dm.backing=loop is %w: %s", driver.ErrUnsupported, obstacle)
	}
	return choice, nil
}

// loopObstacle says why devices cannot be loop devices with a filesystem of the
// kernel's, "" when they can.
func loopObstacle() string {
	if unix.Geteuid() != 0 || control.InUserNamespace() {
		return "the kernel mounts its filesystems for root only"
	}
	for _, path := range []string{"/dev/loop-control", "/dev/fuse"} {
		if f, err := os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return fmt.Sprintf("no %v", err)
		} else {
			f.Close()
		}
	}
	return filesystemObstacle(ext4)
}

// open makes the directory, or checks that it is one of this driver and engine, and
// opens the pool.
func (d *volumes) open(argv func(dir string) []string) error {
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
			if d.byFuse2fs() {
				d.format.Backing = backingFuse2fs
			}
		case err != nil:
			return err
		case d.format.Version != version:
			return fmt.Errorf("%s: version %d, this program knows %d", d.path(formatFile), d.format.Version, version)
		case d.format.Driver != Name:
			return fmt.Errorf("%s holds the layers of driver %s", d.root, d.format.Driver)
		}
		if d.choice.Engine == driver.Native {
			d.pool, err = openThinPool(d.root, &d.set, d.format.BlockSize, isNew)
		} else {
			d.pool, err = openVolumePool(context.Background(), d.root, &d.set, argv)
		}
		if err != nil {
			d.pool = nil // not one without a value
			return err
		}
		if isNew {
			return rootdir.ReplaceJSON(d.path(formatFile), &d.format)
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
		fstype = chooseFilesystem(d.choice.Engine)
	}
	if o := filesystemObstacle(fstype); o != "" && !d.byFuse2fs() {
		return errors.New(o)
	}
	id, err := d.newDevice(ctx, "base")
	if err != nil {
		return err
	}
	size := d.set.baseSize
	if err := d.pool.create(ctx, id, size); err != nil {
		return errors.Join(err, os.Remove(d.devicePath(id)))
	}
	dev, err := d.pool.activate(ctx, id, size)
	if err != nil {
		return err
	}
	further := d.set.mkfsArgs
	if d.byFuse2fs() {
		further = append([]string{"-O", "^has_journal"}, further...) // fuse2fs has no use for one
	}
	err = makeFilesystem(fstype, dev.path, further)
	if err == nil {
		err = d.borrow(id, dev.path, fstype, false, func(dir string) error { return os.Mkdir(filepath.Join(dir, rootDir), 0o755) })
	}
	if err := errors.Join(err, dev.release()); err != nil {
		return fmt.Errorf("base device: %w", err)
	}
	if err := d.pool.idle(ctx, id, size); err != nil {
		return err
	}
	d.format.Base, d.format.BaseSize, d.format.Filesystem = id, size, fstype
	return rootdir.ReplaceJSON(d.path(formatFile), &d.format)
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
	return rootdir.ReplaceJSON(d.path(formatFile), &d.format)
}

// grow has the filesystem of a device that is not mounted take all of size.
func (d *volumes) grow(ctx context.Context, id uint32, size int64) error {
	dev, err := d.pool.activate(ctx, id, size)
	if err != nil {
		return err
	}
	if d.byFuse2fs() {
		err = unix.EPERM
	} else {
		err = d.borrow(id, dev.path, d.format.Filesystem, false, func(dir string) error { return growFilesystem(d.format.Filesystem, dir, size) })
	}
	if errors.Is(err, unix.EPERM) && d.format.Filesystem == ext4 {
		err = growUnmounted(dev.path) // ext4 wants CAP_SYS_RESOURCE, which containers' root has not
	}
	if err := errors.Join(err, dev.release()); err != nil {
		return err
	}
	return d.pool.idle(ctx, id, size)
}

// borrow mounts a device for as long as use takes. The lock is held.
func (d *volumes) borrow(id uint32, dev, fstype string, readOnly bool, use func(dir string) error) error {
	dir, err := os.MkdirTemp(d.path("tmp"), "mount-")
	if err != nil {
		return err
	}
	defer os.Remove(dir) // else swept
	if d.byFuse2fs() {
		err = d.fuse2fs(id, dev, dir, "", readOnly, nil)
	} else {
		err = mountDevice(dev, dir, fstype, readOnly, d.set.mountOptions)
	}
	if err != nil {
		return err
	}
	err = use(dir)
	if e := d.unmountView(dir, true); err == nil {
		err = e
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
	return d.fail("close", "", d.locked(d.pool.close), "")
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
