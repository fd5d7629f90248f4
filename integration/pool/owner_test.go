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
