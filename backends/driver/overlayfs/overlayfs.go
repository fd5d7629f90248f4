// Package overlayfs is what the drivers share that show layers by the kernel's
// overlayfs.
package overlayfs

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Obstacles tries whether this user can mount overlayfs below dir, an empty
// directory, and returns why not, one sentence each.
func Obstacles(dir string, userMarks bool) []string {
	if unix.Geteuid() != 0 {
		return []string{"kernel overlayfs is for root and the root of user namespaces"}
	}
	if err := try(dir, userMarks); err != nil {
		return []string{err.Error()}
	}
	return nil
}

func try(tmp string, userMarks bool) (err error) {
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o700); err != nil {
			return err
		}
	}
	o, err := mountopt.Parse()
	if err != nil {
		return err
	}
	o.Lower = []string{filepath.Join(tmp, "lower")}
	o.Upper, o.Work = filepath.Join(tmp, "upper"), filepath.Join(tmp, "work")
	o.UserXattr = userMarks
	o.Volatile = true // else unmounting writes the whole filesystem out
	target := filepath.Join(tmp, "merged")
	if err := Mount(&o, target); err != nil {
		return err
	}
	defer func() {
		if e := unix.Unmount(target, unix.MNT_DETACH); err == nil && e != nil {
			err = fmt.Errorf("unmount %s: %w", target, e)
		}
	}()
	return os.WriteFile(filepath.Join(target, "written"), nil, 0o600)
}

// Mount mounts a union by the kernel.
func Mount(o *mountopt.Options, target string) error {
	_, err := fusefs.MountKernel(o, target)
	return err
}
