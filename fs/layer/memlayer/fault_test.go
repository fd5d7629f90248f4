package memlayer_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"golang.org/x/sys/unix"
)

// replaceFile is what a careful program does to replace a file: the protocol
// that the tests of faults and crashes watch.
func replaceFile(root layer.Dir, content string) error {
	f, err := root.OpenFile("tmp", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(content), 0); err != nil {
		return errors.Join(err, root.Unlink("tmp"))
	}
	if err := f.WriteOut(); err != nil {
		return errors.Join(err, root.Unlink("tmp"))
	}
	if err := root.Rename("tmp", root, "file", 0); err != nil {
		return errors.Join(err, root.Unlink("tmp"))
	}
	return nil
}

func TestEveryCallCanFail(t *testing.T) {
	plain := memlayer.New(memlayer.Options{})
	var ops []string
	plain.OnCall(func(c memlayer.Call) error {
		ops = append(ops, c.Op)
		if c.N != len(ops) || c.Mutates != true {
			t.Errorf("call %+v: number or Mutates is wrong", c)
		}
		return nil
	})
	root := plain.Root()
	defer root.Close()
	if err := replaceFile(root, "new"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ops, " "); got != "OpenFile WriteAt WriteOut Rename" {
		t.Fatalf("calls are %s", got)
	}
	for n := 1; n <= len(ops); n++ {
		fs := memlayer.New(memlayer.Options{})
		fs.MustBuild(`file f "old"`)
		before := fs.Dump()
		fs.OnCall(memlayer.FailNth(n, syscall.EIO))
		root := fs.Root()
		if err := replaceFile(root, "new"); !errors.Is(err, syscall.EIO) {
			t.Errorf("failing call %d: error is %v", n, err)
		}
		root.Close()
		if after := fs.Dump(); after != before {
			t.Errorf("failing call %d left\n%s", n, after)
		}
		if open := fs.Open(); len(open) > 0 {
			t.Errorf("failing call %d leaked %q", n, open)
		}
	}
}

func TestHooksCompose(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`a f "x"`)
	root := fs.Root()
	defer root.Close()
	stat := func() error { _, err := root.StatAt("a"); return err }

	fs.OnCall(memlayer.Mutations(memlayer.FailNth(1, syscall.ENOSPC)))
	if err := stat(); err != nil {
		t.Errorf("a reading call failed: %v", err)
	}
	if err := root.Mkdir("d", 0o755); err != syscall.ENOSPC {
		t.Errorf("first mutation: %v", err)
	}
	if err := root.Mkdir("d", 0o755); err != nil {
		t.Errorf("second mutation: %v", err)
	}
	fs.OnCall(memlayer.Ops(memlayer.FailFrom(2, syscall.EMFILE), "StatAt"))
	if err := root.Rmdir("d"); err != nil {
		t.Errorf("another method failed: %v", err)
	}
	if err := stat(); err != nil {
		t.Errorf("first call: %v", err)
	}
	for range 2 {
		if err := stat(); err != syscall.EMFILE {
			t.Errorf("later call: %v", err)
		}
	}
	fs.OnCall(func(c memlayer.Call) error {
		if want := fmt.Sprintf(`%d Rename / "a" to="/b" flags=0x1`, fs.Calls()); c.String() != want {
			t.Errorf("the call is %s, want %s", c, want)
		}
		return nil
	})
	if err := root.Rename("a", root, "b", unix.RENAME_NOREPLACE); err != nil {
		t.Error(err)
	}
}

func TestLeaksAreNamed(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`d/f f "x"`)
	root := fs.Root()
	d, err := root.OpenDir("d")
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.OpenFile("f", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(fs.Open()); got != "[/ /d /d/f]" {
		t.Errorf("open: %s", got)
	}
	if err := d.Unlink("f"); err != nil {
		t.Fatal(err)
	}
	if n := fs.Orphans(); n != 1 {
		t.Errorf("%d orphans while the file is open", n)
	}
	for _, o := range []layer.Object{f, d, root} {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		if err := o.Close(); err != syscall.EBADF {
			t.Errorf("closing twice: %v", err)
		}
	}
	if _, err := f.Stat(); err != syscall.EBADF {
		t.Errorf("stat after close: %v", err)
	}
	if open := fs.Open(); len(open) > 0 || fs.Orphans() != 0 {
		t.Errorf("open: %q, orphans: %d", open, fs.Orphans())
	}
}

func TestFullDisk(t *testing.T) {
	for _, quota := range []bool{false, true} {
		want := error(syscall.ENOSPC)
		if quota {
			want = syscall.EDQUOT
		}
		fs := memlayer.New(memlayer.Options{Blocks: 4, Inodes: 4, Quota: quota}) // the root has one of each
		root := fs.Root()
		f, err := root.OpenFile("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		n, err := f.WriteAt(make([]byte, 5*4096), 100)
		if n != 3*4096-100 || err != want {
			t.Errorf("write to a full disk: %d, %v", n, err)
		}
		if err := f.Allocate(0, 0, 1<<20); err != want {
			t.Errorf("allocate: %v", err)
		}
		if n, err := f.WriteAt([]byte("over"), 0); n != 4 || err != nil {
			t.Errorf("overwrite on a full disk: %d, %v", n, err)
		}
		if err := root.Mkdir("d", 0o755); err != want {
			t.Errorf("mkdir without blocks: %v", err)
		}
		if st, _ := root.Statfs(); st.Bfree != 0 || st.Ffree != 2 {
			t.Errorf("statfs: %+v", st)
		}
		// A removed file keeps its space until nobody has it open.
		if err := root.Unlink("f"); err != nil {
			t.Fatal(err)
		}
		if err := root.Mkdir("d", 0o755); err != want {
			t.Errorf("mkdir while the removed file is open: %v", err)
		}
		f.Close()
		for _, name := range []string{"a", "b", "c"} {
			if err := root.Mknod(name, unix.S_IFREG|0o644, 0); err != nil {
				t.Errorf("mknod %s: %v", name, err)
			}
		}
		if err := root.Mknod("d", unix.S_IFREG|0o644, 0); err != want {
			t.Errorf("mknod without inodes: %v", err)
		}
		fs.SetLimits(0, 0)
		if err := root.Mknod("d", unix.S_IFREG|0o644, 0); err != nil {
			t.Errorf("mknod after lifting the limits: %v", err)
		}
		root.Close()
	}
}

func TestInodeNumbersAreNotUsedAgain(t *testing.T) {
	fs := memlayer.New(memlayer.Options{})
	root := fs.Root()
	defer root.Close()
	seen := make(map[uint64]bool)
	for range 100 {
		if err := root.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		st, err := root.StatAt("d")
		if err != nil || seen[st.Ino] {
			t.Fatalf("inode %d, %v: used before", st.Ino, err)
		}
		seen[st.Ino] = true
		if err := root.Rmdir("d"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOnlyExt4 has what other filesystems may do differently.
func TestOnlyExt4(t *testing.T) {
	fs := memlayer.New(memlayer.Options{MaxLinks: 2})
	root := fs.Root()
	defer root.Close()
	f, err := root.OpenFile("f", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(what string, err, want error) {
		t.Helper()
		if err != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("link", root.Link(f, "g"), nil)
	check("one link too many", root.Link(f, "h"), syscall.EMLINK)
	check("too large", f.Truncate(1<<62), syscall.EFBIG)
	_, err = f.WriteAt([]byte("x"), 1<<45)
	check("write too far", err, syscall.EFBIG)
	_, err = f.Seek(-1, unix.SEEK_DATA)
	check("seek before the beginning", err, syscall.ENXIO)
	check("xattrs of a block", f.Setxattr("user.a", make([]byte, 3000), 0), nil)
	check("xattrs of more", f.Setxattr("user.b", make([]byte, 3000), 0), syscall.ENOSPC)
	check("immutable", f.SetFlags(0x10), nil)
	_, err = f.WriteAt([]byte("x"), 0)
	check("write through an older handle", err, syscall.EPERM)
	check("truncate through an older handle", f.Truncate(0), syscall.EPERM)
}
