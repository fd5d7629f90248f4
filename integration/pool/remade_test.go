//go:build integration

package pool

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/poolserver"
)

// TestExportsComeBackAfterTheServerWasKilled kills the server, and in the second
// round also who takes its mount away: the next command finds all as it was.
func TestExportsComeBackAfterTheServerWasKilled(t *testing.T) {
	need(t, "qemu-io")
	users(t, func(t *testing.T, s *stage) {
		s.lamina("volume", "create", "--size", "64M", "tank", "vol")
		s.lamina("volume", "export", "--fuse", "volumes", "tank")
		s.lamina("volume", "export", "--nbd", "nbd", "tank", "vol")
		uri := "nbd+unix:///vol?socket=" + s.path("nbd")
		for round := range 2 {
			s.run("qemu-io", "-f", "raw", "-c", "write -P 7 1M 64K", "-c", "flush", uri)
			s.run("sh", "-ec", "printf hello | dd of=volumes/vol conv=notrunc bs=1 2>/dev/null")
			pid := s.server()
			if round == 1 {
				s.killGuards(pid)
			}
			s.kill(pid)
			if _, err := s.try("cat", "volumes/vol"); err == nil {
				t.Error("the file can be read though nobody serves it")
			}
			s.lamina("volume", "list", "tank") // any command
			if got := s.run("sh", "-ec", "head -c 5 volumes/vol"); got != "hello" {
				t.Errorf("round %d: the file begins with %q", round, got)
			}
			if out := s.run("qemu-io", "-r", "-f", "raw", "-c", "read -P 7 1M 64K", uri); strings.Contains(out, "verification failed") {
				t.Error(out)
			}
		}
		s.lamina("volume", "export", "--fuse", "volumes", "tank") // of a script that does not know
		if out, err := s.try("lamina", "volume", "export", "--fuse", "volumes", "tank"); err == nil {
			t.Errorf("exported twice: %s", out)
		}
		s.lamina("volume", "unexport", "tank", "volumes")
		s.kill(s.server())
		if out := s.lamina("volume", "export", "tank"); strings.Contains(out, "fuse") || !strings.Contains(out, "nbd") {
			t.Errorf("after one was ended and the server killed: %s", out)
		}
		s.lamina("pool", "stop", "tank")
		if out := s.lamina("volume", "export", "tank"); out != "" {
			t.Errorf("after the pool was stopped: %s", out)
		}
	})
}

// killGuards ends the processes that the server has started: the guard of its mount.
func (s *stage) killGuards(server int) {
	s.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(f) > 1 && f[1] == itoa(server) {
			var pid int
			for _, c := range filepath.Base(filepath.Dir(stat)) {
				pid = 10*pid + int(c-'0')
			}
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func TestLoopDevicesOfAKilledServerAreDetachedOrNamed(t *testing.T) {
	need(t, "mkfs.ext4")
	needLoop(t)
	s := newStage(t, 0)
	used := s.mkfs(filesystems[0], "used")
	s.fill(0, 3)
	s.lamina("volume", "create", "--size", "64M", "tank", "idle")
	idle := s.loop("idle")
	s.kill(s.server())
	var st poolserver.Status
	if err := json.Unmarshal([]byte(s.lamina("pool", "status", "--json", "tank")), &st); err != nil {
		t.Fatal(err)
	}
	if len(st.DeadLoops) != 1 || st.DeadLoops[0].Device != used {
		t.Errorf("loop devices that died: %+v, want %s", st.DeadLoops, used)
	}
	if out := s.run("losetup", "-a"); strings.Contains(out, idle+":") {
		t.Errorf("%s is still there: %s", idle, out)
	}
	out := s.lamina("pool", "status", "tank")
	if !strings.Contains(out, "umount "+s.path("fs")+" && losetup -d "+used) {
		t.Errorf("no way out is shown:\n%s", out)
	}
	s.run("sh", "-c", "umount fs && losetup -d "+used)
	eventually(t, "the device to be gone", func() bool { return !strings.Contains(s.lamina("pool", "status", "tank"), "dead:") })
	s.loops = nil
	s.run("mount", s.loop("used"), s.path("fs"))
	s.has(0, 3)
	s.run("umount", s.path("fs"))
}
