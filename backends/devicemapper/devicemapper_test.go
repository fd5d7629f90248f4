package devicemapper

import (
	"os"
	"testing"
	"time"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

var subject = drivertest.Subject{Open: open, Deepest: 128}

// backingEnv has the processes of a test open the driver with that dm.backing.
const backingEnv = "LAMINA_DEVICEMAPPER_BACKING"

// open keeps the pools of tests small, and has sizes that the suite can reach.
func open(cfg driver.Config) (driver.Driver, error) {
	options := []string{"dm.loopdatasize=4g", "dm.loopmetadatasize=128m", "dm.basesize=512m"}
	if b := os.Getenv(backingEnv); b != "" {
		options = append(options, "dm.backing="+b)
	}
	if loopObstacle() != "" && os.Getenv(backingEnv) != backingFuse2fs || os.Getenv(backingEnv) == backingDataset {
		options = append(options, "dm.basesize=4m", "dm.size=512m", "dm.loopdatasize=512m")
	}
	cfg.Options = append(options, cfg.Options...)
	return Open(cfg)
}

func TestMain(m *testing.M) { drivertest.Main(m, subject) }
func TestConformance(t *testing.T) {
	if os.Getenv(backingEnv) == backingFuse2fs { // as another user
		drivertest.RunEngine(t, ofFuse2fs, driver.Userspace)
		return
	}
	drivertest.Run(t, subject)
}
func TestOtherUsers(t *testing.T) { drivertest.Others(t) }

// What ordinary users get can be had by root too.
func TestConformanceOfDatasets(t *testing.T) {
	t.Setenv(backingEnv, backingDataset)
	drivertest.Run(t, subject)
}

// ofFuse2fs is the driver with devices that fuse2fs serves, which tells times without
// parts of seconds.
var ofFuse2fs = drivertest.Subject{Open: open, Deepest: 128, TimeUnit: time.Second}

// An ordinary user's devices can have a filesystem too.
func TestConformanceOfFuse2fs(t *testing.T) {
	if o := fuse2fsObstacle(); o != "" {
		t.Skip(o)
	}
	t.Setenv(backingEnv, backingFuse2fs)
	drivertest.RunEngine(t, ofFuse2fs, driver.Userspace)
}

func TestFuse2fsOfOtherUsers(t *testing.T) {
	if o := fuse2fsObstacle(); o != "" {
		t.Skip(o)
	}
	t.Setenv(backingEnv, backingFuse2fs)
	drivertest.Others(t)
}
