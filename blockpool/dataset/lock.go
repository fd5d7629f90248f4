package dataset

import "slices"

// lockAll locks nodes for changing them, in the order of their numbers, each one
// once, and returns what unlocks them.
func lockAll(nodes ...*Node) (unlock func(), err error) {
	order := slices.Clone(nodes)
	slices.SortFunc(order, func(a, b *Node) int {
		switch {
		case a.id < b.id:
			return -1
		case a.id > b.id:
			return 1
		}
		return 0
	})
	order = slices.Compact(order)
	for i, n := range order {
		if err := n.lock(); err != nil {
			unlockAll(order[:i])
			return nil, err
		}
	}
	return func() { unlockAll(order) }, nil
}

func unlockAll(nodes []*Node) {
	for _, n := range nodes {
		n.mu.Unlock()
	}
}

// tryAll locks nodes that are not among those that are locked already, unless one
// of them is in use.
func tryAll(nodes, held []*Node) (unlock func(), ok bool, err error) {
	var got []*Node
	for _, n := range nodes {
		if slices.Contains(held, n) || slices.Contains(got, n) {
			continue
		}
		ok := n.mu.TryLock()
		if ok {
			got = append(got, n)
			err = n.loadLocked()
		}
		if !ok || err != nil {
			unlockAll(got)
			return nil, false, err
		}
	}
	return func() { unlockAll(got) }, true, nil
}

// withFound locks directories and then the nodes that find sees in them, with the
// directories locked, and calls do. The nodes of find come with a reference each,
// which it takes back in the end. Which nodes those are is known only once the
// directories are locked, and their numbers may be lower ones: as long as nobody
// uses them trying is enough, else all are locked anew in their order, and looked
// for again, as others may have come meanwhile.
func (fs *FS) withFound(dirs []*Node, find func() ([]*Node, error), do func(found []*Node) error) error {
	unlock, err := lockAll(dirs...)
	if err != nil {
		return err
	}
	found, err := find()
	defer func() { fs.forgetAll(found) }()
	if err != nil {
		unlock()
		return err
	}
	more, ok, err := tryAll(found, dirs)
	if ok {
		err = do(found)
		more()
	}
	unlock()
	for !ok && err == nil {
		if unlock, err = lockAll(append(slices.Clone(dirs), found...)...); err != nil {
			return err
		}
		var again []*Node
		again, err = find()
		if ok = slices.Equal(again, found); ok && err == nil {
			err = do(found)
		}
		unlock()
		fs.forgetAll(found)
		found = again
	}
	return err
}

func (fs *FS) forgetAll(nodes []*Node) {
	for _, n := range nodes {
		fs.Forget(n, 1)
	}
}
