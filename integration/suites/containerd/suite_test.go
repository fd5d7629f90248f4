package containerd

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"

	"github.com/laminafs/lamina/backends/drivertest"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/integration/suites"
)

func TestMain(m *testing.M) {
	drivertest.BeServer()
	os.Exit(m.Run())
}

// suiteName is by what the suite knows which directories cannot be renamed: those of
// lower layers where the format has no way to say from where they came. It asks for no
// such thing of containerd's own snapshotters that are like that.
func suiteName(s suites.Subject) string {
	if s.Driver == "aufs" {
		return "fuse-overlayfs"
	}
	return "lamina-" + s.String()
}

func TestSnapshotter(t *testing.T) {
	suites.Each(t, func(t *testing.T, s suites.Subject) {
		testsuite.SnapshotterSuite(t, suiteName(s), func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
			opened, err := store.Open(ctx, store.Config{
				Root: root, Driver: s.Driver, Engine: s.Engine, Options: s.Options(), Volatile: true,
				Servers: drivertest.Servers, PoolServer: drivertest.PoolCommand,
			})
			if err != nil {
				return nil, nil, err
			}
			sn := New(opened)
			return sn, func() error { return errors.Join(sn.unmountAll(context.Background()), sn.Close()) }, nil
		})
	})
}
