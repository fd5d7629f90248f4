package drivertest

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
)

// CreateAndMount measures how long it takes to make and mount a writable layer over
// stacks of several depths, which must not matter. What cfg leaves out, such as the
// root, it chooses.
func CreateAndMount(b *testing.B, open func(driver.Config) (driver.Driver, error), cfg driver.Config) {
	for _, depth := range []int{1, 128} {
		b.Run(fmt.Sprint(depth), func(b *testing.B) {
			cfg.Root, cfg.Servers, cfg.PoolServer = filepath.Join(b.TempDir(), "root"), Servers, PoolCommand
			d, err := open(cfg)
			if err != nil {
				b.Skip(err)
			}
			defer d.Close()
			createAndMount(b, d, depth)
		})
	}
}

func createAndMount(b *testing.B, d driver.Driver, depth int) {
	ok := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx, parent := b.Context(), ""
	for i := range depth {
		id := fmt.Sprint("l", i)
		ok(d.Create(ctx, id, parent, driver.CreateOptions{}))
		ok(d.Commit(ctx, id))
		parent = id
	}
	var create, mount float64
	for b.Loop() {
		start := b.Elapsed()
		ok(d.Create(ctx, "top", parent, driver.CreateOptions{}))
		made := b.Elapsed()
		_, err := d.Mount(ctx, "top", driver.MountOptions{})
		ok(err)
		mounted := b.Elapsed()
		create, mount = create+(made-start).Seconds(), mount+(mounted-made).Seconds()
		b.StopTimer()
		ok(d.Unmount(ctx, "top", "", false))
		ok(d.Remove(ctx, "top"))
		b.StartTimer()
	}
	b.ReportMetric(create*1000/float64(b.N), "create-ms")
	b.ReportMetric(mount*1000/float64(b.N), "mount-ms")
}
