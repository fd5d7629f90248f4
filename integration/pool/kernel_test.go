//go:build integration

package pool

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// A filesystem of the kernel, and how its checker is asked to change nothing.
type filesystem struct {
	name  string
	make  []string
	check []string
	mount string // options for a copy beside the original
}

var filesystems = []filesystem{
	{"ext4", []string{"mkfs.ext4", "-q"}, []string{"e2fsck", "-fn"}, "rw"},
	{"xfs", []string{"mkfs.xfs", "-q"}, []string{"xfs_repair", "-n"}, "nouuid"},
}

func each(t *testing.T, test func(*testing.T, filesystem)) {
	for _, fs := range filesystems {
		t.Run(fs.name, func(t *testing.T) {
			need(t, fs.make[0], fs.check[0], "mount")
			needLoop(t)
			test(t, fs)
		})
	}
}

// mkfs makes a volume with a filesystem and mounts it.
func (s *stage) mkfs(fs filesystem, volume string) (device string) {
	s.Helper()
	s.lamina("volume", "create", "--size", "1G", "tank", volume)
	device = s.loop(volume)
	s.run(append(fs.make, device)...)
	s.run("mount", device, s.path("fs"))
	return device
}

// fill writes files, each with what its name says, and syncs.
func (s *stage) fill(from, to int) {
	s.Helper()
	for i := from; i < to; i++ {
		if err := os.WriteFile(s.file(i), fileContent(i), 0o644); err != nil {
			s.Fatal(err)
		}
	}
	s.run("sync", "-f", s.path("fs"))
}

func (s *stage) file(i int) string { return filepath.Join(s.path("fs"), fmt.Sprint("file", i)) }

func fileContent(i int) []byte { return []byte(strings.Repeat(fmt.Sprintf("%08d", i), 1+i%7000)) }

// has checks that files are what they must be.
func (s *stage) has(from, to int) {
	s.Helper()
	for i := from; i < to; i++ {
		if got, err := os.ReadFile(s.file(i)); err != nil || string(got) != string(fileContent(i)) {
			s.Fatalf("%s is not what was synced (%d bytes, %v)", s.file(i), len(got), err)
		}
	}
}

func TestFilesystemOnAVolume(t *testing.T) {
	each(t, func(t *testing.T, fs filesystem) {
		s := newStage(t, 0)
		device := s.mkfs(fs, "vol")
		s.fill(0, 200)
		for i := range 100 {
			os.Remove(s.file(i))
		}
		s.run("fstrim", s.path("fs"))
		s.has(100, 200)
		out, err := s.try("lamina", "volume", "unexport", "tank", device)
		if err == nil || !strings.Contains(out, "first run: umount "+s.path("fs")) {
			t.Errorf("unexport below a mount: %v: %s", err, out)
		}
		if out, err := s.try("lamina", "pool", "stop", "tank"); err == nil || !strings.Contains(out, "losetup -d "+device) {
			t.Errorf("stop below a mount: %v: %s", err, out)
		}
		s.run("umount", s.path("fs"))
		s.run(append(fs.check, device)...)
		s.lamina("volume", "unexport", "tank", device)
		s.loops = nil
		if out := s.lamina("volume", "export", "tank"); out != "" {
			t.Errorf("still exported: %s", out)
		}
		s.lamina("pool", "stop", "tank") // and nothing is busy
		device = s.loop("vol")
		s.run("mount", device, s.path("fs"))
		s.has(100, 200)
	})
}

// The journal of a filesystem relies on each flush. After the server was killed in
// the middle of its work, the kernel replays it, and the checker must find nothing.
func TestFilesystemOutlivesItsServer(t *testing.T) {
	crashes := 3
	if n, err := strconv.Atoi(os.Getenv("LAMINA_CRASHES")); err == nil {
		crashes = n
	}
	each(t, func(t *testing.T, fs filesystem) {
		crashes := crashes
		if fs.name != "ext4" { // the others are there to see that it is not ext4 alone
			crashes = min(crashes, 3+crashes/10)
		}
		s := newStage(t, 0)
		device := s.mkfs(fs, "vol")
		rng := rand.New(rand.NewPCG(5, 6))
		synced := 0
		for crash := range crashes {
			s.fill(synced, synced+20)
			synced += 20
			pid := s.server()
			work := s.command("sh", "-c", `cd fs && i=0; while :; do mkdir d$i && dd if=/dev/urandom of=d$i/f bs=64k count=20 conv=fsync && mv d$i/f g$i && rm -rf d$((i-3)) && i=$((i+1)); done >/dev/null 2>&1`)
			work.SysProcAttr.Setpgid = true
			if err := work.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(30+rng.IntN(270)) * time.Millisecond)
			s.kill(pid)
			unix.Kill(-work.Process.Pid, unix.SIGKILL)
			work.Wait()
			eventually(t, "the dead filesystem to be unmounted", func() bool {
				_, err := s.try("umount", s.path("fs"))
				return err == nil
			})
			s.dropLoops()
			device = s.loop("vol")
			s.run("mount", device, s.path("fs")) // replays the journal
			s.has(0, synced)
			s.run("umount", s.path("fs"))
			if out, err := s.try(append(fs.check, device)...); err != nil {
				t.Fatalf("after crash %d: %v\n%s", crash, err, out)
			}
			s.run("mount", device, s.path("fs"))
			s.run("sh", "-c", "rm -rf fs/d* fs/g*")
		}
	})
}

// A snapshot of a frozen filesystem is as one that was unmounted.
func TestSnapshotOfAFrozenFilesystemMountsClean(t *testing.T) {
	each(t, func(t *testing.T, fs filesystem) {
		need(t, "fsfreeze")
		s := newStage(t, 0)
		device := s.mkfs(fs, "vol")
		s.fill(0, 50)
		s.run("fsfreeze", "-f", s.path("fs"))
		s.lamina("volume", "snapshot", "tank", "vol@frozen")
		s.run("fsfreeze", "-u", s.path("fs"))
		for i := range 50 {
			os.Remove(s.file(i))
		}
		s.fill(50, 100)
		s.run("umount", s.path("fs"))
		s.lamina("volume", "clone", "tank", "vol@frozen", "copy")
		copied := s.loop("copy")
		s.run("mount", "-o", fs.mount, copied, s.path("fs"))
		s.has(0, 50)
		if exists(s.file(50)) {
			t.Error("the snapshot has what came after it")
		}
		s.run("umount", s.path("fs"))
		s.run(append(fs.check, copied)...)
		snap := s.loop("vol@frozen")
		if out, err := s.try("dd", "if=/dev/zero", "of="+snap, "bs=4k", "count=1", "oflag=direct"); err == nil {
			t.Errorf("a snapshot was written: %s", out)
		}
		if fs.name == "ext4" {
			s.run("mount", "-o", "ro", snap, s.path("fs")) // clean: nothing to replay
			s.has(0, 50)
			s.run("umount", s.path("fs"))
		}
		for _, d := range []string{snap, copied, device} {
			s.lamina("volume", "unexport", "tank", d)
		}
		s.loops = nil
	})
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }
