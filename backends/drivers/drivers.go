// Package drivers lists the storage drivers.
package drivers

import (
	"fmt"
	"strings"

	"github.com/laminafs/lamina/backends/aufs"
	"github.com/laminafs/lamina/backends/btrfs"
	"github.com/laminafs/lamina/backends/devicemapper"
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
	// alone says why layers cannot be built on those of an additional store.
	alone string
}{
	{"overlay2", overlay2.Open, ""},
	{"overlay", overlay.Open, "its trees are made of hard links, which cannot reach into another store"},
	{"aufs", aufs.Open, ""},
	{"devicemapper", devicemapper.Open, "a layer is a snapshot of its parent, which must be in the same pool"},
	{"btrfs", btrfs.Open, "a layer is a snapshot of its parent, which must be in the same filesystem or pool"},
	{"zfs", zfs.Open, "a layer is a clone of its parent, which must be in the same pool"},
	{"vfs", vfs.Open, ""},
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
		if d.name != name {
			continue
		}
		if len(cfg.Additional) > 0 && d.alone != "" {
			return nil, &driver.Error{Driver: name, Op: "open", Cause: fmt.Errorf("additional layers in %s: %w: %s", cfg.Additional[0], driver.ErrUnsupported, d.alone),
				Next: "take overlay2, aufs or vfs, or bring the images here: lamina image convert"}
		}
		return d.open(cfg)
	}
	return nil, fmt.Errorf("driver %q: %w; there are: %s", name, driver.ErrUnsupported, strings.Join(Names(), ", "))
}
