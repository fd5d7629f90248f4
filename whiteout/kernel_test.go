package whiteout

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests in this file ask the running kernel whether it means what this
// package says. Those that mount need root.

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount and to write trusted.* xattrs")
	}
}

// mount mounts until the end of the test; what the kernel of this machine does
// not have is a skip.
func mount(t *testing.T, source, target, fstype, options string) {
	t.Helper()
	if err := unix.Mount(source, target, fstype, 0, options); err != nil {
		t.Skipf("this machine cannot mount %s with %q: %v", fstype, options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// onFilesystem returns a directory on a filesystem of the type, "" for the
// one that has the temporary directory.
func onFilesystem(t *testing.T, fstype string) string {
	t.Helper()
	dir := t.TempDir()
	switch fstype {
	case "":
		return dir
	case "tmpfs":
		needRoot(t)
		mount(t, "tmpfs", dir, "tmpfs", "size=16m")
		return dir
	}
	needRoot(t)
	mkfs, err := exec.LookPath("mkfs." + fstype)
	if err != nil {
		t.Skipf("mkfs.%s is not installed", fstype)
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 400<<20); err != nil { // xfs wants 300 MB; sparse
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", fstype, err, out)
	}
	if out, err := exec.Command("mount", "-t", fstype, "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this machine cannot mount %s from a file: %v: %s", fstype, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func mkdirs(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("data\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func getxattr(t *testing.T, path, attr string) []byte {
	t.Helper()
	value := make([]byte, 512)
	n, err := unix.Lgetxattr(path, attr, value)
	if err != nil {
		t.Fatalf("getxattr %s %s: %v", path, attr, err)
	}
	return value[:n]
}

func TestInodeNumberIsFoundInRealFileHandles(t *testing.T) {
	for _, fstype := range []string{"", "tmpfs", "ext4", "xfs", "btrfs"} {
		t.Run("fs="+fstype, func(t *testing.T) {
			path := filepath.Join(onFilesystem(t, fstype), "f")
			write(t, path)
			var st unix.Stat_t
			var fs unix.Statfs_t
			if err := errors.Join(unix.Stat(path, &st), unix.Statfs(path, &fs)); err != nil {
				t.Fatal(err)
			}
			if _, known := layoutsOf[int64(fs.Type)&0xffffffff]; !known {
				t.Skipf("the temporary directory is on a filesystem of type %#x", fs.Type)
			}
			real, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
			if err != nil {
				t.Skipf("no file handles here: %v", err)
			}
			h, err := NewFileHandle([16]byte{}, real.Type(), real.Bytes(), false)
			if err != nil {
				t.Fatal(err)
			}
			if ino, ok := h.InodeOn(int64(fs.Type)); !ok || ino != st.Ino {
				t.Errorf("type %#x, %x: inode %d, %v, want %d", h.Type, h.FID, ino, ok, st.Ino)
			}
			if ino, ok := h.Inode(); !ok || ino != st.Ino {
				t.Errorf("type %#x, %x: guessed inode %d, %v, want %d", h.Type, h.FID, ino, ok, st.Ino)
			}
		})
	}
}

func TestKernelWritesTheOriginsAndIndexNamesThatWeCompute(t *testing.T) {
	for _, fstype := range []string{"", "tmpfs", "ext4", "xfs", "btrfs"} {
		t.Run("fs="+fstype, func(t *testing.T) {
			needRoot(t)
			dir := onFilesystem(t, fstype)
			lower, upper, work, merged := dir+"/l", dir+"/u", dir+"/w", dir+"/m"
			mkdirs(t, lower+"/d", upper, work, merged)
			write(t, lower+"/f")
			if err := os.Link(lower+"/f", lower+"/g"); err != nil {
				t.Fatal(err)
			}
			mount(t, "overlay", merged, "overlay", fmt.Sprintf(
				"lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on,metacopy=on,index=on", lower, upper, work))
			if err := errors.Join(os.Chmod(merged+"/f", 0o600), os.Rename(merged+"/d", merged+"/e"),
				unix.Lsetxattr(merged+"/f", Trusted.Opaque(), []byte("users"), 0)); err != nil {
				t.Fatal(err)
			}

			origin, err := ParseFileHandle(getxattr(t, upper+"/f", Trusted.Origin()))
			if err != nil {
				t.Fatal(err)
			}
			real, _, err := unix.NameToHandleAt(unix.AT_FDCWD, lower+"/f", 0)
			if err != nil {
				t.Fatal(err)
			}
			ours, err := NewFileHandle(origin.UUID, real.Type(), real.Bytes(), false)
			if err != nil {
				t.Fatal(err)
			}
			name, err := ours.IndexName()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Join(work, "index", name)); err != nil {
				t.Errorf("the index has no such entry: %v", err)
			}
			if m, err := ParseMetacopy(getxattr(t, upper+"/f", Trusted.Metacopy())); err != nil || m.Digest != nil {
				t.Errorf("metacopy %+v, %v", m, err)
			}
			n, err := ParseNlink(getxattr(t, upper+"/f", Trusted.Nlink()))
			if count, ok := n.Count(2); err != nil || !ok || count != 2 || !n.Upper {
				t.Errorf("nlink %+v, %v, want 2 names", n, err)
			}
			if r, err := ParseRedirect(getxattr(t, upper+"/e", Trusted.Redirect())); err != nil || r.Encode() != "d" {
				t.Errorf("redirect %+v, %v", r, err)
			}
			stored, _ := Trusted.Escape(Trusted.Opaque())
			if got := getxattr(t, upper+"/f", stored); string(got) != "users" {
				t.Errorf("%s = %q", stored, got)
			}
		})
	}
}

// judge mounts two layers, the upper of which has the xattr on its directory
// d, and tells whether "low", which is in all directories of the other, shows
// through.
func judge(t *testing.T, attr string, value []byte) (merged bool, err error) {
	t.Helper()
	dir := t.TempDir()
	mkdirs(t, dir+"/top/d", dir+"/m")
	for _, d := range []string{"d", "dir", "a/b/c", "...", ".wh.x", "\xff\xfe/\n"} {
		mkdirs(t, dir+"/low/"+d)
		write(t, dir+"/low/"+d+"/low")
	}
	if err := unix.Lsetxattr(dir+"/top/d", attr, value, 0); err != nil {
		t.Skipf("cannot set %s: %v", attr, err)
	}
	mount(t, "overlay", dir+"/m", "overlay", fmt.Sprintf("lowerdir=%s/top:%s/low,redirect_dir=follow", dir, dir))
	_, err = os.Lstat(dir + "/m/d/low")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func TestKernelReadsRedirectsAsWeDo(t *testing.T) {
	needRoot(t)
	for _, v := range kernelRedirects {
		t.Run(fmt.Sprintf("%.20q", v.value), func(t *testing.T) {
			merged, err := judge(t, Trusted.Redirect(), []byte(v.value))
			switch {
			case strings.HasSuffix(v.value, "\x00"):
				if err != nil { // stricter here on purpose; the comment of ParseRedirect says so
					t.Errorf("the kernel does not cut it at the NUL: %v", err)
				}
			case (err != nil) != (v.path == ""):
				t.Errorf("the kernel says %v, we say %q", err, v.path)
			case err == nil && merged != (len(v.value) <= nameMax):
				t.Errorf("merged: %v", merged)
			}
		})
	}
}

func TestKernelReadsOpaqueAsWeDo(t *testing.T) {
	needRoot(t)
	for _, value := range []string{"y", "x", "", "Y", "yes", "y\x00", "z"} {
		t.Run(fmt.Sprintf("%q", value), func(t *testing.T) {
			merged, err := judge(t, Trusted.Opaque(), bytes.Clone([]byte(value)))
			ours, _ := ParseOpaque([]byte(value))
			if err != nil || merged != (ours != OpaqueYes) {
				t.Errorf("merged: %v, %v; we say %v", merged, err, ours)
			}
		})
	}
}

// A file with the whiteout xattr deletes its name for who looks it up. Who
// lists the directory is told only when that is marked with 'x'.
func TestKernelFindsXattrWhiteoutsAsWeSay(t *testing.T) {
	needRoot(t)
	for _, marked := range []bool{true, false} {
		t.Run(fmt.Sprintf("opaque=x:%v", marked), func(t *testing.T) {
			dir := t.TempDir()
			mkdirs(t, dir+"/top/d", dir+"/low/d", dir+"/m")
			write(t, dir+"/low/d/gone")
			nodes, err := OverlayXattr.Encode(Entry{Name: "gone", Kind: Deleted})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range nodes {
				path := filepath.Join(dir, "top/d", n.Name)
				if n.Name == "" && !marked {
					continue
				}
				if n.Name != "" {
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				for attr, value := range n.Xattrs {
					if err := unix.Lsetxattr(path, attr, value, 0); err != nil {
						t.Skipf("cannot set %s: %v", attr, err)
					}
				}
			}
			mount(t, "overlay", dir+"/m", "overlay", fmt.Sprintf("lowerdir=%s/top:%s/low", dir, dir))
			if _, err := os.Lstat(dir + "/m/d/gone"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("lookup: %v (kernels before 6.7 know no such whiteouts)", err)
			}
			entries, err := os.ReadDir(dir + "/m/d")
			if err != nil || (len(entries) == 0) != marked {
				t.Errorf("listing: %v, %v", entries, err)
			}
		})
	}
}
