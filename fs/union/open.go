package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// PrepareWrite makes a regular file ready for being written: copied up, and
// empty if truncate says so.
func (fs *FS) PrepareWrite(n *Node, truncate bool) error {
	if n.typ != unix.S_IFREG {
		return nil // devices, FIFOs and sockets are written elsewhere
	}
	if truncate {
		if fs.upper == nil {
			return unix.EROFS
		}
		return fs.truncate(n, 0)
	}
	return fs.copyUp(n, wantAll)
}

// WithData calls use with the open file that holds the data of a regular file
// now, and tells whether that is the upper's. The file stays the union's.
func (fs *FS) WithData(n *Node, use func(f layer.File, upper bool) error) error {
	h, err := fs.openData(n, false)
	if err != nil {
		return err
	}
	defer h.release()
	return use(readable(h.obj), n.has(stateUpper) && !n.has(stateMetacopy))
}

// Bounded reports whether the upper has a limit that counts what is written.
func (fs *FS) Bounded() bool { return fs.limits.on() }
