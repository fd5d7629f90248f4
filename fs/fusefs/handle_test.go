package fusefs

import (
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// rootFS has a root directory.
type rootFS struct{ emptyFS }

func (rootFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Mode, out.Nlink, out.Ino = unix.S_IFDIR|0o755, 2, 1
	return fuse.OK
}

// A layer on FUSE has file handles that mean other files in its next mount. A
// union that remembered files by them showed the content of one under the name
// of another.
func TestLayersOnFUSEHaveNoLastingHandles(t *testing.T) {
	needMount(t)
	target := t.TempDir()
	d, err := openDevice(target, MountFlags{FSName: "root", Subtype: "lamina"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	srv, err := fuse.NewServer(rootFS{emptyFS{fuse.NewDefaultRawFileSystem()}}, fmt.Sprintf("/dev/fd/%d", d.fd), &fuse.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve()
	if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, target, 0); err != nil {
		t.Skipf("this kernel gives no handles of files on FUSE: %v", err)
	}
	for how, open := range map[string]func(string) (layer.Dir, error){"own": layer.OpenHost, "shared": layer.OpenHostShared} {
		dir, err := open(target)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if h, err := dir.Handle(); err != unix.EOPNOTSUPP {
			t.Errorf("%s: handle %x of type %#x, %v", how, h.Bytes, h.Type, err)
		}
		dir.Close()
	}
}
