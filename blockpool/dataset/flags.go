package dataset

import (
	"golang.org/x/sys/unix"
)

// The flags of chattr(1) that are kept (include/uapi/linux/fs.h).
const (
	flagSync      = 0x08    // FS_SYNC_FL
	flagImmutable = 0x10    // FS_IMMUTABLE_FL
	flagAppend    = 0x20    // FS_APPEND_FL
	flagNodump    = 0x40    // FS_NODUMP_FL
	flagNoatime   = 0x80    // FS_NOATIME_FL
	flagDirsync   = 0x10000 // FS_DIRSYNC_FL

	knownFlags = flagSync | flagImmutable | flagAppend | flagNodump | flagNoatime | flagDirsync
)

// inheritedFlags returns the flags that a new object takes over from its
// directory, as in ext4.
func inheritedFlags(flags, typ uint32) uint32 {
	switch typ {
	case unix.S_IFDIR:
		return flags & (flagSync | flagNodump | flagNoatime | flagDirsync)
	case unix.S_IFREG:
		return flags & (flagSync | flagNodump | flagNoatime)
	}
	return flags & (flagNodump | flagNoatime)
}

// Flags returns the inode flags of chattr(1), ENOTTY for what has none.
func (fs *FS) Flags(n *Node) (flags uint32, err error) {
	if err := n.rlock(); err != nil {
		return 0, err
	}
	defer n.mu.RUnlock()
	if !n.in.isDir() && !n.in.isFile() {
		return 0, unix.ENOTTY
	}
	return n.in.flags, nil
}

// SetFlags sets the inode flags. EOPNOTSUPP tells that some of them are not kept
// here.
func (fs *FS) SetFlags(n *Node, flags uint32) error {
	v, err := n.lockWritable()
	if err != nil {
		return err
	}
	defer n.mu.Unlock()
	switch {
	case !n.in.isDir() && !n.in.isFile():
		return unix.ENOTTY
	case flags&^knownFlags != 0, flags&flagDirsync != 0 && !n.in.isDir():
		return unix.EOPNOTSUPP
	}
	s := v.step()
	s.change(n).flags = flags
	return s.commit("set flags", n.object)
}

// lockWritable locks a node for a change: EROFS where there can be none.
func (n *Node) lockWritable() (*view, error) {
	if n.view == nil || n.view.readOnly.Load() {
		return nil, unix.EROFS
	}
	return n.view, n.lock()
}
