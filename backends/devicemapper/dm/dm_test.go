package dm

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/devicemapper/loopdev"
)

// The kernel looks at the size of the structure before anything else.
func TestTheHeaderIsTheKernels(t *testing.T) {
	if headerSize != 312 {
		t.Errorf("struct dm_ioctl has %d bytes, the kernel's 312", headerSize)
	}
	if got := ioctlNumber(cmdDevCreate); got != 0xc138fd03 {
		t.Errorf("DM_DEV_CREATE is %#x, the kernel's 0xc138fd03", got)
	}
}

// Devices come, tell of themselves, and stay for as long as somebody has them.
func TestALinearDeviceLivesAsLongAsItIsOpen(t *testing.T) {
	c, err := Open()
	if err != nil {
		t.Skipf("%v; run make vm-test", err)
	}
	defer c.Close()
	f, err := os.CreateTemp(t.TempDir(), "disk")
	ok(t, err)
	ok(t, f.Truncate(16<<20))
	ok(t, f.Close())
	l, err := loopdev.Attach(f.Name(), loopdev.Options{})
	ok(t, err)
	defer l.Close()

	const name = "lamina-test-linear"
	if _, err := c.Info(name); !errors.Is(err, unix.ENXIO) {
		t.Errorf("a device that is not there: %v", err)
	}
	i, err := c.Create(name, Target{16 << 20 / SectorSize, "linear", l.Path() + " 0"}, false)
	ok(t, err)
	if _, err := c.Create(name, Target{1, "linear", l.Path() + " 0"}, false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a name twice: %v", err)
	}
	if kind, params, err := c.Table(name); err != nil || kind != "linear" || params != l.Number()+" 0" {
		t.Errorf("%s %q, %v", kind, params, err)
	}
	if names, err := c.Names(); err != nil || !slices.Contains(names, name) {
		t.Errorf("%q, %v", names, err)
	}
	if targets, err := c.Targets(); err != nil || targets["linear"][0] == 0 {
		t.Errorf("%v, %v", targets, err)
	}
	ok(t, c.Reload(name, Target{8 << 20 / SectorSize, "linear", l.Path() + " 0"}, false))
	dev, err := os.Open(i.Node())
	ok(t, err)
	if end, err := dev.Seek(0, 2); err != nil || end != 8<<20 {
		t.Errorf("%d bytes, %v", end, err)
	}
	if err := c.Remove(name, false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removing what is open: %v", err)
	}
	ok(t, c.Remove(name, true))
	if i, err := c.Info(name); err != nil || !i.Deferred || i.Open != 1 {
		t.Errorf("%+v, %v", i, err)
	}
	ok(t, dev.Close())
	eventually(t, func() bool { _, err := c.Info(name); return errors.Is(err, unix.ENXIO) })
	if _, err := c.Create(name, Target{1, "no-such-target", ""}, false); err == nil {
		t.Error("a target that does not exist")
	}
	if _, err := c.Info(name); !errors.Is(err, unix.ENXIO) {
		t.Errorf("a device that could not be made is there: %v", err)
	}
}
