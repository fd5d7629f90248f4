package zfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

const (
	// fsnameEnv names a dataset of a real zfs below which the tests may make others.
	fsnameEnv = "LAMINA_ZFS_FSNAME"
	// doubleEnv names the directory of a double of zfs(8).
	doubleEnv = "LAMINA_ZFS_DOUBLE"
)

var subject = drivertest.Subject{Open: openForTest, Deepest: 128, Clean: clean}

// fsname is a dataset of its own for each root.
func fsname(root string) string {
	parent := os.Getenv(fsnameEnv)
	if parent == "" {
		return ""
	}
	return fmt.Sprintf("%s/%x", parent, sha256.Sum256([]byte(root)))[:len(parent)+17]
}

// openForTest keeps the pools of tests small, and takes the double where a test says so.
func openForTest(cfg driver.Config) (driver.Driver, error) {
	if cfg.Engine != driver.Native {
		if cfg.Engine == driver.Userspace {
			cfg.Options = append([]string{"poolsize=512m"}, cfg.Options...)
		}
		return Open(cfg)
	}
	if dir := os.Getenv(doubleEnv); dir != "" {
		cfg.Options = append([]string{fmt.Sprintf("fsname=tank/%x", sha256.Sum256([]byte(cfg.Root)))[:30]}, cfg.Options...)
		return openOn(double{dir}, cfg)
	}
	if name := fsname(cfg.Root); name != "" {
		cfg.Options = append([]string{"fsname=" + name}, cfg.Options...)
	}
	return Open(cfg)
}

// clean unmounts what the native engine keeps mounted, and destroys its datasets.
func clean(root string) error {
	mounted, err := filepath.Glob(root + "/graph/*")
	for _, path := range mounted {
		if e := unix.Unmount(path, 0); e != nil && e != unix.EINVAL {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", path, e))
		}
	}
	if name := fsname(root); name != "" && len(mounted) > 0 && os.Getenv(doubleEnv) == "" {
		_, e := run("zfs", "destroy", "-R", name)
		err = errors.Join(err, e)
	}
	return err
}

func TestMain(m *testing.M)        { drivertest.Main(m, subject) }
func TestConformance(t *testing.T) { drivertest.Run(t, subject) }
func TestOtherUsers(t *testing.T)  { drivertest.Others(t) }

// The native engine keeps its promises if zfs(8) does what its manual says.
func TestNativeWithADoubleOfZFS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("bind mounts, which stand for datasets, are for root")
	}
	t.Setenv(doubleEnv, t.TempDir())
	drivertest.RunEngine(t, subject, driver.Native)
}
