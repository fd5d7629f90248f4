package union

import (
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// shownNlink returns the link count that the union shows.
func (fs *FS) shownNlink(n *Node, own uint32) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.ext == nil:
		return own
	case n.has(stateOrphan) && !n.has(stateUpper):
		return 0
	}
	return uint32(max(0, int(own)+n.ext.nlinkDiff))
}

// dropLink counts a name that has just gone: of an indexed inode, or of a lower
// one with several names that are kept together. A name that the upper had is
// counted by the inode itself.
//
// Crash before it, or failure: one name too many is counted, see indexStaged.
func (fs *FS) dropLink(n *Node, upperHad bool) error {
	if upperHad || fs.index == nil {
		return nil
	}
	return fs.changeLinks(n, -1)
}

// changeLinks changes the count of the names that the upper does not have.
func (fs *FS) changeLinks(n *Node, by int) error {
	n.mu.Lock()
	keyed := n.ext != nil && len(n.ext.keys) > 0
	if !keyed {
		n.mu.Unlock()
		return nil
	}
	n.ext.nlinkDiff += by
	diff := n.ext.nlinkDiff
	n.mu.Unlock()
	err := fs.noteLinks(n, diff)
	if err != nil {
		n.mu.Lock()
		n.ext.nlinkDiff -= by
		n.mu.Unlock()
	}
	return err
}

// noteLinks writes down what the link count of a node has beyond the object's
// own: with the copy, or beside the index while there is none.
func (fs *FS) noteLinks(n *Node, diff int) error {
	if n.has(stateIndexed) {
		mark := whiteout.Nlink{Upper: true, Diff: int32(diff)}.Encode()
		return fs.withObject(n, objectOps{open: func(o layer.Object) error {
			return o.Setxattr(fs.opt.Prefix.Nlink(), mark, 0)
		}})
	}
	if n.has(stateUpper) {
		return nil
	}
	idx, links, err := fs.indexNameAndLinks(n.lowerPlace())
	if err != nil || idx == "" {
		return err
	}
	if links+diff <= 0 {
		diff = 0 // nobody will ask any more
	}
	return fs.index.setCount(fs.work, idx, diff)
}

// linkGone removes an inode from the index when its last name has gone.
func (fs *FS) linkGone(n *Node) {
	if fs.index == nil || !n.has(stateIndexed) || !n.has(stateOrphan) {
		return
	}
	n.mu.Lock()
	o, diff, idx := n.ext.pinObj, n.ext.nlinkDiff, n.ext.indexAs
	n.mu.Unlock()
	if o == nil || idx == "" {
		return
	}
	st, err := o.Stat()
	if err != nil || int(st.Nlink)+diff > 0 {
		return // names that were not looked up yet lead here
	}
	if fs.index.dir.Unlink(idx) == nil {
		n.mu.Lock()
		n.ext.nlinkDiff++ // the inode has lost the name in the index
		n.mu.Unlock()
		fs.index.mu.Lock()
		delete(fs.index.names, idx)
		fs.index.mu.Unlock()
	}
}
