package btrfs

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

var subject = drivertest.Subject{Open: openSmall, Deepest: 500, Clean: clean}

// clean destroys subvolumes, which are read-only.
func clean(root string) error {
	found, err := filepath.Glob(root + "/subvolumes/*")
	for _, path := range found {
		if isSubvolume(path) {
			err = errors.Join(err, destroySubvolume(path))
		}
	}
	return err
}

// openSmall keeps the pools of tests small.
func openSmall(cfg driver.Config) (driver.Driver, error) {
	if cfg.Engine == driver.Userspace {
		cfg.Options = append([]string{"poolsize=512m"}, cfg.Options...)
	}
	return Open(cfg)
}

func TestMain(m *testing.M)        { drivertest.Main(m, subject) }
func TestConformance(t *testing.T) { drivertest.Run(t, subject) }
func TestOtherUsers(t *testing.T)  { drivertest.Others(t) }
