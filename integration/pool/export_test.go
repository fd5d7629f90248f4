//go:build integration

package pool

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// users runs a test as root and as somebody who is not.
func users(t *testing.T, test func(*testing.T, *stage)) {
	t.Run("root", func(t *testing.T) { test(t, newStage(t, 0)) })
	t.Run("user", func(t *testing.T) {
		if st, err := os.Stat("/dev/fuse"); err != nil || st.Mode()&0o006 != 0o006 {
			t.Skip("/dev/fuse is closed to ordinary users")
		}
		need(t, "fusermount3")
		test(t, newStage(t, daemonUID))
	})
}

func TestVolumesAreFilesInADirectory(t *testing.T) {
	users(t, func(t *testing.T, s *stage) {
		s.lamina("volume", "create", "--size", "64M", "tank", "dir/vol")
		s.lamina("volume", "export", "--fuse", "volumes", "tank")
		s.run("sh", "-ec", "head -c 1000000 /dev/urandom >data; dd if=data of=volumes/dir/vol conv=notrunc,fsync bs=1M 2>/dev/null; cmp -n 1000000 data volumes/dir/vol")
		s.lamina("volume", "snapshot", "tank", "dir/vol@a")
		if out := s.run("sh", "-ec", "cmp -n 1000000 data volumes/dir/vol@a; stat -c %a,%s volumes/dir/vol@a"); out != "400,67108864" {
			t.Errorf("the snapshot is %s", out)
		}
		hold := s.command("sh", "-c", "exec 3<volumes/dir/vol; echo; read x")
		in, err := hold.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := hold.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := hold.Start(); err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 1))
		for _, argv := range [][]string{{"volume", "unexport", "tank", "volumes"}, {"pool", "stop", "tank"}, {"volume", "rm", "tank", "dir/vol"}} {
			if out, err := s.try(append([]string{"lamina"}, argv...)...); err == nil || !strings.Contains(out, "busy") && !strings.Contains(out, "in use") {
				t.Errorf("%v while a file is open: %v: %s", argv, err, out)
			}
		}
		in.Close()
		hold.Wait()
		eventually(t, "the file to be closed", func() bool {
			_, err := s.try("lamina", "volume", "unexport", "tank", "volumes")
			return err == nil
		})
		if out := s.run("ls", "volumes"); out != "" {
			t.Errorf("after unexport: %s", out)
		}
		s.lamina("volume", "export", "--fuse", "volumes", "tank")
		s.kill(s.server())
		eventually(t, "the mount of the killed server to go", func() bool {
			var st unix.Statfs_t
			return unix.Statfs(s.path("volumes"), &st) == nil && st.Type != unix.FUSE_SUPER_MAGIC
		})
		s.lamina("volume", "export", "--fuse", "volumes", "tank")
		s.run("cmp", "-n", "1000000", "data", "volumes/dir/vol")
	})
}

func TestVolumesOverNBD(t *testing.T) {
	need(t, "qemu-img", "qemu-io", "nbdinfo")
	users(t, func(t *testing.T, s *stage) {
		s.lamina("volume", "create", "--size", "64M", "--record-size", "64K", "tank", "vol")
		s.lamina("volume", "export", "--nbd", "nbd", "tank", "vol")
		uri := "nbd+unix:///vol?socket=" + s.path("nbd")
		var info struct {
			Exports []struct {
				Size      int64 `json:"export-size"`
				Preferred int64 `json:"block_size_preferred"`
				Flush     bool  `json:"can_flush"`
				FUA       bool  `json:"can_fua"`
				Trim      bool  `json:"can_trim"`
				Zero      bool  `json:"can_zero"`
				ReadOnly  bool  `json:"is_read_only"`
			} `json:"exports"`
		}
		if err := json.Unmarshal([]byte(s.run("nbdinfo", "--json", uri)), &info); err != nil || len(info.Exports) != 1 {
			t.Fatal(err)
		}
		if e := info.Exports[0]; e.Size != 64<<20 || e.Preferred != 64<<10 || !e.Flush || !e.FUA || !e.Trim || !e.Zero || e.ReadOnly {
			t.Errorf("nbdinfo: %+v", e)
		}
		s.run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 256K", "-c", "write -z 1M 64K", "-c", "discard 1152K 64K", "-c", "flush", uri)
		s.kill(s.server()) // right after the flush
		s.lamina("volume", "export", "--nbd", "nbd", "tank", "vol")
		if out := s.run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 1M 64K", "-c", "read -P 0x5a 1088K 64K", "-c", "read -P 0 1152K 64K", "-c", "read -P 0x5a 1216K 64K", uri); strings.Contains(out, "verification failed") {
			t.Error(out)
		}
		s.run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, "out.img")
		s.lamina("volume", "unexport", "tank", "nbd")
		s.run("sh", "-ec", "lamina=$0; $lamina volume export --raw tank vol >raw.img; cmp out.img raw.img", program)
		var st unix.Stat_t
		if err := unix.Stat(s.path("raw.img"), &st); err != nil || st.Size != 64<<20 || st.Blocks*512 > 1<<20 {
			t.Errorf("the stream takes %d of %d bytes (%v)", st.Blocks*512, st.Size, err)
		}
		if exists(s.path("nbd")) {
			t.Error("the socket is left")
		}
	})
}

// A guest's disk must not go away because somebody asks for it.
func TestNBDClientKeepsTheExport(t *testing.T) {
	need(t, "qemu-io")
	s := newStage(t, 0)
	s.lamina("volume", "create", "--size", "64M", "tank", "vol")
	s.lamina("volume", "export", "--nbd", "nbd", "tank")
	client := s.command("qemu-io", "-f", "raw", "nbd+unix:///vol?socket="+s.path("nbd"))
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	client.Stdout, client.Stderr = &out, &out
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client to be there", func() bool { return strings.Contains(s.lamina("volume", "export", "tank"), "in use by 1") })
	if out, err := s.try("lamina", "volume", "unexport", "tank", "nbd"); err == nil || !strings.Contains(out, "has 1 clients") {
		t.Errorf("unexport: %v: %s", err, out)
	}
	in.Write([]byte("write -P 7 0 4K\nflush\n"))
	in.Close()
	if err := client.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	eventually(t, "the export to end", func() bool {
		_, err := s.try("lamina", "volume", "unexport", "tank", "nbd")
		return err == nil
	})
}
