package btrfs

import (
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

var subject = drivertest.Subject{Open: open, Deepest: 500}

// open keeps the pools of tests small.
func open(cfg driver.Config) (driver.Driver, error) {
	if cfg.Engine == driver.Userspace {
		cfg.Options = append([]string{"poolsize=512m"}, cfg.Options...)
	}
	return Open(cfg)
}

func TestMain(m *testing.M)        { drivertest.Main(m, subject) }
func TestConformance(t *testing.T) { drivertest.Run(t, subject) }
func TestOtherUsers(t *testing.T)  { drivertest.Others(t) }
