package kernel

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/laminafs/lamina/backends/blocks"
	"github.com/laminafs/lamina/backends/nbd"
	"github.com/laminafs/lamina/blockpool"
)

// A volume over NBD is a disk to the kernel of another host: it carries a
// filesystem, takes discards and flushes, and holds after reconnecting what it held.
func TestNBDClientOfTheKernel(t *testing.T) {
	need(t, "/dev/nbd0", "nbd-client", "mkfs.ext4", "e2fsck", "fstrim")
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			dir := t.TempDir()
			p := newPool(t, dir, "tank")
			must(t, p.CreateVolume(ctx, "disk", 512<<20, blockpool.VolumeOptions{}))
			socket := serveNBD(t, p)
			const dev = "/dev/nbd0"
			at := filepath.Join(dir, "mnt")
			connect(t, socket, "disk", dev)
			ok(t, "mkfs."+fstype, "-q", dev)
			mounted(t, dev, at, fstype)
			for i := range 100 {
				name := filepath.Join(at, fmt.Sprint("f", i))
				must(t, os.WriteFile(name, []byte(strings.Repeat(name, 3000)), 0o644))
			}
			ok(t, "sync", "-f", at)
			must(t, p.Sync(ctx))
			full := referenced(t, p)
			for i := range 80 {
				must(t, os.Remove(filepath.Join(at, fmt.Sprint("f", i))))
			}
			ok(t, "sync", "-f", at)
			ok(t, "fstrim", at)
			must(t, p.Sync(ctx))
			if trimmed := referenced(t, p); trimmed >= full {
				t.Errorf("%d bytes before and %d after fstrim: discards do not arrive", full, trimmed)
			}
			unmount(t, at)
			check := map[string][]string{"ext4": {"e2fsck", "-fn", dev}, "xfs": {"xfs_repair", "-n", dev}}[fstype]
			ok(t, check...)
			disconnect(t, dev)

			must(t, p.Snapshot(ctx, "disk", "disk@then"))
			connect(t, socket, "disk", dev)
			mounted(t, dev, at, fstype)
			for i := 80; i < 100; i++ {
				name := filepath.Join(at, fmt.Sprint("f", i))
				if got, err := os.ReadFile(name); err != nil || string(got) != strings.Repeat(name, 3000) {
					t.Errorf("%s is not what was written (%v)", name, err)
				}
			}
			unmount(t, at)
			disconnect(t, dev)

			connect(t, socket, "disk@then", dev)
			if got := ok(t, "blockdev", "--getro", dev); got != "1" {
				t.Error("a snapshot can be written to")
			}
			disconnect(t, dev)
		})
	}
}

func referenced(t *testing.T, p *blockpool.Pool) int64 {
	t.Helper()
	v, err := p.Volume("disk")
	must(t, err)
	return v.Referenced
}

// serveNBD serves all volumes until the test ends.
func serveNBD(t *testing.T, p *blockpool.Pool) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // t.TempDir is too long for a socket's name
	must(t, err)
	socket = filepath.Join(dir, "socket")
	ln, err := net.Listen("unix", socket)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		s := nbd.Server{Exports: &blocks.Named{Pool: p}}
		done <- s.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return socket
}

func connect(t *testing.T, socket, export, dev string) {
	t.Helper()
	ok(t, "nbd-client", "-unix", socket, "-N", export, dev)
	t.Cleanup(func() {
		if _, err := os.Stat("/sys/block/" + filepath.Base(dev) + "/pid"); err == nil {
			ok(t, "nbd-client", "-d", dev)
		}
	})
}

func disconnect(t *testing.T, dev string) {
	t.Helper()
	ok(t, "nbd-client", "-d", dev)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat("/sys/block/" + filepath.Base(dev) + "/pid"); err != nil {
			return
		} else if time.Now().After(end) {
			t.Fatalf("%s stays connected", dev)
		}
	}
}
