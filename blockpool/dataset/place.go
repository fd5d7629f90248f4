package dataset

// Place returns a path of a node, below the root of the tree that has it, and the name
// of that tree: the dataset, or a snapshot or subvolume that is entered. The path is
// empty for what has none, and the tree for a directory that is shown and is in none.
// It is for who looks on, and reads as many items as the path has parts.
func (fs *FS) Place(id uint64) (path, tree string) {
	n := fs.nodes.get(id)
	if n == nil || n.view == nil {
		return "", ""
	}
	tree = n.view.tree.Name()
	if n.object == rootObject {
		return "/", tree
	}
	if n.rlock() != nil {
		return "", tree
	}
	linked, at := n.in.nlink > 0, place{n.in.parent, n.in.pos}
	n.mu.RUnlock()
	f := pathFinder{v: n.view, dirs: map[uint64]string{rootObject: ""}}
	if !linked {
		return "", tree
	}
	path, err := f.path(at)
	if err != nil { // it has just been renamed, or is damaged
		return "", tree
	}
	return "/" + path, tree
}
