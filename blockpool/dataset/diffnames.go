package dataset

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// A Delta is in what a tree differs from an older one, for who compares the two name
// by name or wants to know what the difference takes.
type Delta struct {
	// Names are the paths, in either tree, of all objects that differ, sorted. What
	// lies below a directory that has another name, or took the place of another, is
	// not among them unless it differs itself.
	Names   []string
	Bytes   int64 // that those records take which the old tree has not
	Objects int64 // that are new or have changed
}

// DiffNames compares two trees at the cost of their difference, see [Diff].
func DiffNames(old Tree, now Differ) (Delta, error) {
	d := differ{touched: map[uint64]*touched{}, subvols: map[uint64]*moved{}}
	d.old.init(old)
	d.now.init(now)
	var delta Delta
	err := now.DiffFrom(old, func(key, was, is []byte) error {
		if _, _, record := blockpool.ObjectOf(key); record && is != nil {
			n, err := blockpool.StoredSize(is)
			if err != nil {
				return err
			}
			delta.Bytes += n
		}
		return d.note(key, was, is)
	})
	if err != nil {
		return delta, failed("compare", 0, err)
	}
	for object := range d.touched {
		is, err := d.addNames(&delta, object)
		if err != nil {
			return delta, err
		}
		if is {
			delta.Objects++
		}
	}
	for _, m := range d.subvols {
		err := d.names(Difference{Type: unix.S_IFDIR}, m.old, m.now)
		if err != nil {
			return delta, err
		}
	}
	for _, c := range d.list {
		delta.Names = append(delta.Names, c.Path)
		if c.Kind == Renamed {
			delta.Names = append(delta.Names, c.OldPath)
		}
	}
	slices.Sort(delta.Names)
	delta.Names = slices.Compact(delta.Names)
	return delta, nil
}

// addNames adds all names of an object and reports whether it is in the new tree.
func (d *differ) addNames(delta *Delta, object uint64) (is bool, err error) {
	for _, f := range []*pathFinder{&d.old, &d.now} {
		in, names, err := f.linked(object)
		if err != nil {
			return false, err
		}
		is = in != nil // of the last one, which is the new tree
		for _, at := range names {
			path, err := f.path(at)
			if err != nil {
				return false, err
			}
			delta.Names = append(delta.Names, path)
		}
	}
	return is, nil
}
