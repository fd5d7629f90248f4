package suites

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivers"
	"github.com/laminafs/lamina/backends/drivertest"
)

// A Subject is a storage driver with one of its engines.
type Subject struct {
	Driver string
	Engine driver.Engine
}

// options keep what tests make small, and the first device below the 50M that the suites
// ask for, since devices only grow.
var options = map[Subject][]string{
	{"btrfs", driver.Userspace}:        {"poolsize=512m"},
	{"zfs", driver.Userspace}:          {"poolsize=512m"},
	{"devicemapper", driver.Userspace}: {"dm.fs=ext4", "dm.basesize=40m", "dm.loopdatasize=4g", "dm.loopmetadatasize=64m"},
}

// Options are those with which the driver is opened.
func (s Subject) Options() []string { return options[s] }

func (s Subject) String() string { return s.Driver + "-" + string(s.Engine) }

// Open opens the driver on a directory.
func (s Subject) Open(root string) (driver.Driver, error) {
	return drivers.Open(s.Driver, driver.Config{
		Root: root, Engine: s.Engine, Options: s.Options(), Volatile: true,
		Servers: drivertest.Servers, PoolServer: drivertest.PoolCommand,
	})
}

// Each calls run for each driver with each of its engines that this machine and this
// user have. It needs root: the suites make files of other owners.
func Each(t *testing.T, run func(t *testing.T, s Subject)) {
	if os.Geteuid() != 0 {
		t.Skip("the suite makes files of other owners, which needs root")
	}
	for _, name := range drivers.Names() {
		for _, engine := range []driver.Engine{driver.Native, driver.Userspace} {
			s := Subject{name, engine}
			t.Run(s.String(), func(t *testing.T) {
				d, err := s.Open(filepath.Join(t.TempDir(), "root"))
				if errors.Is(err, driver.ErrUnsupported) {
					t.Skipf("there is no such engine here: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				run(t, s)
			})
		}
	}
}

// Layers is how many the deep stack of a suite has.
func Layers() int {
	if testing.Short() {
		return 8
	}
	return 64
}

// A Difference is a case of a suite that lamina does not pass on purpose.
type Difference struct {
	Test   string
	Driver string        // "" for all
	Engine driver.Engine // "" for all
	Why    string
}

// Skip skips the test if one of the differences says so.
func (s Subject) Skip(t *testing.T, test string, differences []Difference) {
	t.Helper()
	for _, d := range differences {
		if d.Test == test && (d.Driver == "" || d.Driver == s.Driver) && (d.Engine == "" || d.Engine == s.Engine) {
			t.Skip(d.Why)
		}
	}
}

// NeedSizes skips a test of limits when the engine has none.
func (s Subject) NeedSizes(t *testing.T) {
	t.Helper()
	d, err := s.Open(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !d.Capabilities().Size {
		t.Skip("this engine has no limits of single layers")
	}
}
