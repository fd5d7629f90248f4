package btrfs

import (
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

func BenchmarkCreateAndMount(b *testing.B) {
	drivertest.CreateAndMount(b, Open, driver.Config{Engine: driver.Userspace, Options: []string{"poolsize=1g"}})
}
