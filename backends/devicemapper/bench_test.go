package devicemapper

import (
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

func BenchmarkCreateAndMount(b *testing.B) {
	for _, s := range []struct{ backing, fstype string }{{"native", ext4}, {"native", xfs}, {backingLoop, ext4}, {backingLoop, xfs}, {backingDataset, ""}} {
		b.Run(s.backing+s.fstype, func(b *testing.B) {
			cfg := driver.Config{Engine: driver.Native}
			if s.backing != "native" {
				cfg.Engine, cfg.Options = driver.Userspace, []string{"dm.backing=" + s.backing}
			}
			if s.fstype != "" {
				cfg.Options = append(cfg.Options, "dm.fs="+s.fstype)
			}
			drivertest.CreateAndMount(b, Open, cfg)
		})
	}
}
