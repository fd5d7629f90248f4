// Package drivers lists the storage drivers.
package drivers

import (
	"fmt"
	"strings"

	"github.com/laminafs/lamina/backends/aufs"
	"github.com/laminafs/lamina/backends/btrfs"
	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/overlay"
	"github.com/laminafs/lamina/backends/overlay2"
	"github.com/laminafs/lamina/backends/vfs"
	"github.com/laminafs/lamina/backends/zfs"
)

// Default is the driver that is taken unless another is asked for.
const Default = "overlay2"

// table is in the order in which they are shown.
var table = []struct {
	name string
	open func(driver.Config) (driver.Driver, error)
}{
	{"overlay2", overlay2.Open},
	{"overlay", overlay.Open},
	{"aufs", aufs.Open},
	{"btrfs", btrfs.Open},
	{"zfs", zfs.Open},
	{"vfs", vfs.Open},
}

// Names returns the names of all.
func Names() []string {
	names := make([]string, len(table))
	for i, d := range table {
		names[i] = d.name
	}
	return names
}

// Open opens a driver by name.
func Open(name string, cfg driver.Config) (driver.Driver, error) {
	for _, d := range table {
		if d.name == name {
			return d.open(cfg)
		}
	}
	return nil, fmt.Errorf("driver %q: %w; there are: %s", name, driver.ErrUnsupported, strings.Join(Names(), ", "))
}
