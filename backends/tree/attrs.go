package tree

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// copyAttributes gives an object all that a node has but its data.
func copyAttributes(n *Node, o layer.Object) error {
	if err := chown(o, int(n.Stat.UID), int(n.Stat.GID)); err != nil {
		return err
	}
	if n.Stat.Type() != unix.S_IFLNK {
		if err := o.Chmod(n.Stat.Mode & 0o7777); err != nil {
			return err
		}
	}
	attrs, err := n.Xattrs()
	if err != nil {
		return err
	}
	for attr, value := range attrs {
		if _, err := setXattr(o, attr, []byte(value)); err != nil {
			return err
		}
	}
	return o.SetTimes(n.Stat.Atime, n.Stat.Mtime)
}

// CopyRoot gives dst, the directory of a new layer, the attributes of src, that of
// its parent. Marks are no attributes: they belong to where they are.
func CopyRoot(src, dst layer.Dir) error {
	v, err := NewView([]Branch{{"parent", keptOpen{src}}})
	if err != nil {
		return err
	}
	defer v.Close()
	n, err := v.Root()
	if err != nil {
		return err
	}
	return copyAttributes(n, dst)
}

// keptOpen is a directory that closing a view leaves open.
type keptOpen struct{ layer.Dir }

func (keptOpen) Close() error { return nil }

func chown(o layer.Object, uid, gid int) error {
	err := o.Chown(uid, gid)
	switch err {
	case unix.EINVAL:
		return fmt.Errorf("owner %d:%d: %w: this user namespace has no such ids; give it subordinate ids (newuidmap)", uid, gid, err)
	case unix.EPERM:
		return fmt.Errorf("owner %d:%d: %w: only root may give files away", uid, gid, err)
	}
	return err
}

// setXattr stores an attribute so that a view shows it under its name. It
// returns false for one that the filesystem or this user cannot keep.
func setXattr(o layer.Object, attr string, value []byte) (bool, error) {
	if attr == "" || strings.IndexByte(attr, 0) >= 0 {
		return false, refuse("xattr %q", attr)
	}
	for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
		stored, ok := p.Escape(attr)
		if !ok {
			return false, nil
		}
		if stored != attr {
			attr = stored
			break
		}
	}
	if strings.HasPrefix(attr, "user.fuseoverlayfs.") {
		return false, refuse("xattr %s is a mark of fuse-overlayfs", attr)
	}
	switch err := o.Setxattr(attr, value, 0); err {
	case nil:
		return true, nil
	case unix.EOPNOTSUPP, unix.EPERM, unix.ENOSPC, unix.E2BIG, unix.ERANGE:
		if err == unix.ENOSPC && strings.HasPrefix(attr, "security.") {
			return false, fmt.Errorf("xattr %s: %w", attr, err)
		}
		return false, nil
	default:
		return false, fmt.Errorf("xattr %s: %w", attr, err)
	}
}
