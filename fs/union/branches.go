package union

import (
	"github.com/laminafs/lamina/fs/layer"
)

// BranchInfo names a layer of a union.
type BranchInfo struct {
	Role string // upper, lower or data-only
	Name string
}

// Branches returns the layers from the top.
func (fs *FS) Branches() []BranchInfo {
	fs.branchMu.RLock()
	defer fs.branchMu.RUnlock()
	var out []BranchInfo
	if fs.upper != nil {
		out = append(out, BranchInfo{"upper", fs.upper.name})
	}
	for _, b := range fs.lowers {
		out = append(out, BranchInfo{"lower", b.name})
	}
	for _, b := range fs.data {
		out = append(out, BranchInfo{"data-only", b.name})
	}
	return out
}

// Options returns the options in force.
func (fs *FS) Options() Options { return fs.opt }

// AnyDescriptor returns the number of a descriptor of some layer, to try out
// what the kernel does with one, or -1.
func (fs *FS) AnyDescriptor() int {
	for _, b := range fs.allBranches() {
		if d, ok := b.root.pin.Load().obj.(layer.Descriptor); ok {
			return d.Fd()
		}
	}
	return -1
}

// Handles returns the number of open descriptors of layers.
func (fs *FS) Handles() int {
	fs.handles.mu.Lock()
	defer fs.handles.mu.Unlock()
	n := 0
	for _, e := range fs.handles.ring {
		if !e.closed() {
			n++
		}
	}
	return n
}

// Usage returns the bytes and objects in the upper, 0 where they are not
// bounded and so not counted.
func (fs *FS) Usage() (bytes, inodes int64) {
	fs.limits.mu.Lock()
	defer fs.limits.mu.Unlock()
	return fs.limits.bytes, fs.limits.inodes
}

func (w WhiteoutStyle) String() string {
	switch w {
	case WhiteoutDevice:
		return "overlay"
	case WhiteoutXattr:
		return "xattr"
	case WhiteoutAufs:
		return "aufs"
	}
	return "auto"
}
