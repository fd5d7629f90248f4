//go:build integration

package pool

import (
	"bytes"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

// openAt opens a file of the stage.
func (s *stage) openAt(name string, flags int) *os.File {
	s.Helper()
	f, err := os.OpenFile(s.path(name), flags, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { f.Close() })
	return f
}

// reads returns how many READ requests a mount has answered.
func (s *stage) reads(mount string) uint64 {
	s.Helper()
	c, err := fusefs.Dial(s.path(mount))
	if err != nil {
		s.Fatal(err)
	}
	defer c.Close()
	n, err := c.Counters()
	if err != nil {
		s.Fatal(err)
	}
	return n.Requests["READ"]
}

// is checks that n bytes at an offset of a file are all the same.
func (s *stage) is(what string, f *os.File, off int64, n int, want byte) {
	s.Helper()
	p := make([]byte, n)
	if _, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{want}, n)) {
		s.Errorf("%s: %d bytes at %d are not all %#x (%v)", what, n, off, want, err)
	}
}

// aligned returns n bytes that direct I/O takes.
func aligned(n int, fill byte) []byte {
	p := make([]byte, n+4096)
	p = p[4096-int(uintptr(unsafe.Pointer(&p[0]))%4096):][:n]
	copy(p, bytes.Repeat([]byte{fill}, n))
	return p
}

// TestCachedFilesShowWhatOthersChange reads a volume again and again through one
// mount, from the page cache, while others change it in every way that there is.
func TestCachedFilesShowWhatOthersChange(t *testing.T) {
	need(t, "qemu-io")
	s := newStage(t, 0)
	t.Setenv("LAMINA_RUNTIME_DIR", s.path("run"))
	s.run("mkdir", "second")
	t.Cleanup(func() { unix.Unmount(s.path("second"), unix.MNT_DETACH) })
	s.lamina("volume", "create", "--size", "64M", "tank", "vol")
	s.lamina("volume", "export", "--fuse", "volumes", "tank")
	s.lamina("volume", "export", "--fuse", "second", "tank")
	s.lamina("volume", "export", "--nbd", "nbd", "tank", "vol")
	f := s.openAt("volumes/vol", os.O_RDWR)
	if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	before := s.reads("volumes")
	s.is("what was written", f, 0, 4<<20, 1)
	s.is("what was written", f, 1<<20, 4096, 1)
	if after := s.reads("volumes"); after != before {
		t.Errorf("%d requests to read what was just written", after-before)
	}
	s.run("qemu-io", "-f", "raw", "-c", "write -P 2 64K 64K", "-c", "discard 256K 64K", "nbd+unix:///vol?socket="+s.path("nbd"))
	s.is("written over NBD", f, 64<<10, 64<<10, 2)
	s.is("discarded over NBD", f, 256<<10, 64<<10, 0)
	s.is("beside it", f, 128<<10, 128<<10, 1)

	g := s.openAt("second/vol", os.O_RDWR)
	s.is("by way of another mount", g, 64<<10, 64<<10, 2)
	if _, err := g.WriteAt(bytes.Repeat([]byte{3}, 5000), 100_000); err != nil {
		t.Fatal(err)
	}
	s.is("written through another mount", f, 100_000, 5000, 3)
	if err := unix.Fallocate(int(g.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20); err != nil {
		t.Fatal(err)
	}
	s.is("punched through another mount", f, 1<<20, 1<<20, 0)

	d := s.openAt("volumes/vol", os.O_RDWR|unix.O_DIRECT)
	before = s.reads("volumes")
	p := aligned(65536, 0)
	if _, err := d.ReadAt(p, 2<<20); err != nil || p[0] != 1 || s.reads("volumes") == before {
		t.Errorf("a direct read: %v, %d, %d requests", err, p[0], s.reads("volumes")-before)
	}
	if _, err := d.WriteAt(aligned(65536, 4), 2<<20); err != nil {
		t.Fatal(err)
	}
	s.is("written directly", f, 2<<20, 65536, 4)
	s.lamina("volume", "snapshot", "tank", "vol@a")

	for _, direct := range []string{"on", "off"} {
		device := s.run("losetup", "--find", "--show", "--direct-io="+direct, s.path("volumes/vol"))
		s.loops = append(s.loops, device)
		loop, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT|unix.O_SYNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.is("before the loop device", f, 3<<20, 65536, map[string]byte{"on": 1, "off": 5}[direct])
		fill := map[string]byte{"on": 5, "off": 6}[direct]
		if _, err := loop.WriteAt(aligned(65536, fill), 3<<20); err != nil {
			t.Fatal(err)
		}
		s.is("written to a loop device with direct I/O "+direct, f, 3<<20, 65536, fill)
		s.is("the same through another mount", g, 3<<20, 65536, fill)
		loop.Close()
		s.run("losetup", "-d", device)
	}

	s.lamina("volume", "resize", "tank", "vol", "128M")
	s.is("what is new of a larger volume", f, 100<<20, 4096, 0)
	if st, err := f.Stat(); err != nil || st.Size() != 128<<20 {
		t.Errorf("its size is %d (%v)", st.Size(), err)
	}
	for _, x := range []*os.File{f, g, d} {
		x.Close()
	}
	s.lamina("volume", "unexport", "tank", "nbd")
	eventually(t, "the volume to be closed", func() bool {
		_, err := s.try("lamina", "volume", "rollback", "tank", "vol@a")
		return err == nil
	})
	f = s.openAt("volumes/vol", os.O_RDONLY)
	s.is("rolled back", f, 3<<20, 65536, 1)
	s.is("rolled back", f, 2<<20, 65536, 4)
}
