//go:build integration

package pool

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRootDoesNotLockTheOwnerOut has root be the first to use somebody's pool.
func TestRootDoesNotLockTheOwnerOut(t *testing.T) {
	s := newStage(t, daemonUID)
	s.lamina("pool", "stop", "tank")
	root := *s
	root.uid = 0
	root.lamina("volume", "create", "--size", "16M", "tank", "roots")
	pid := root.server()
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+itoa(pid), &st); err != nil || st.Uid != daemonUID {
		t.Errorf("the server of a pool of uid %d runs as uid %d (%v)", daemonUID, st.Uid, err)
	}
	s.lamina("volume", "create", "--size", "16M", "tank", "mine")
	if out := root.lamina("volume", "list", "tank"); !strings.Contains(out, "mine") || !strings.Contains(out, "roots") {
		t.Errorf("root sees %s", out)
	}
	// What it makes and mounts is the owner's.
	need(t, "fusermount3")
	s.lamina("volume", "export", "--fuse", "volumes", "tank")
	s.run("sh", "-ec", "printf hello | dd of=volumes/roots conv=notrunc bs=1 2>/dev/null; test $(head -c 5 volumes/roots) = hello")
	s.lamina("volume", "unexport", "tank", "volumes")
	root.lamina("pool", "stop", "tank")
	s.lamina("volume", "list", "tank")
}

// TestRootMakesLoopDevicesOfSomebodysPool mounts ext4 on a volume of a pool that is
// an ordinary user's, whose FUSE mount the kernel shows to nobody else.
func TestRootMakesLoopDevicesOfSomebodysPool(t *testing.T) {
	need(t, "mkfs.ext4", "losetup", "fusermount3")
	s := newStage(t, daemonUID)
	root := *s
	root.uid = 0
	t.Cleanup(root.dropLoops)
	s.lamina("volume", "create", "--size", "64M", "tank", "vol")
	device := root.loop("vol")
	root.run("mkfs.ext4", "-q", device)
	root.run("mount", device, s.path("fs"))
	root.run("sh", "-ec", "echo kept > fs/file; sync")
	if out, err := root.try("lamina", "volume", "unexport", "tank", device); err == nil {
		t.Errorf("a device was taken from under a mount: %s", out)
	}
	root.run("umount", s.path("fs"))
	root.lamina("volume", "unexport", "tank", device)
	root.loops = nil
	// The owner has what root wrote, and it stays when the server is another one.
	s.lamina("pool", "stop", "tank")
	s.lamina("volume", "snapshot", "tank", "vol@snap")
	snap := root.loop("vol@snap")
	root.run("mount", "-o", "ro,noload", snap, s.path("fs"))
	if got := root.run("cat", "fs/file"); got != "kept" {
		t.Errorf("the snapshot has %q", got)
	}
	root.run("umount", s.path("fs"))
	root.lamina("volume", "unexport", "tank", snap)
	root.loops = nil
	if out, err := s.try("lamina", "volume", "export", "--loop", "tank", "vol"); err == nil || !strings.Contains(out, "only root") {
		t.Errorf("an ordinary user got %s", out)
	}
}
