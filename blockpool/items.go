package blockpool

import (
	"bytes"
	"errors"
	"slices"

	tree "github.com/tidwall/btree"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/mutant"
)

// isItem reports whether a key of a dataset's tree is that of an item, and not of
// a record.
func isItem(key []byte) bool { return len(key) > 0 && key[0] >= ItemCounted }

// putItems puts the changed items of a dataset into its tree.
func (s *pass) putItems(t *btree.Tree, e *entry, items *tree.Map[string, itemValue]) (err error) {
	items.Scan(func(key string, value itemValue) bool {
		k := []byte(key)
		counted := k[0] == ItemCounted && !mutant.Breaks(mutant.CountObjects)
		if value == nil {
			var ok bool
			if _, ok, err = t.Delete(k); ok && counted {
				e.objects--
			}
			return err == nil
		}
		var old []byte
		if old, err = t.Put(k, value); err == nil && old == nil && counted {
			e.objects++
		}
		return err == nil
	})
	return err
}

// item returns the value of an item, nil if there is none.
func (v *volume) item(key []byte) ([]byte, error) {
	v.pool.view.RLock()
	v.mu.RLock()
	epoch, root := v.pool.epochs.hold(), v.entry.Load().root
	value, known := v.dirtyItem(string(key))
	v.mu.RUnlock()
	v.pool.view.RUnlock()
	defer epoch.release()
	if known {
		return value, nil
	}
	value, ok, err := btree.Get(epoch, root, key)
	if err != nil || !ok {
		return nil, err
	}
	return value, nil
}

// dirtyItem returns what the txgs under way have made of an item. The view and mu
// are held.
func (v *volume) dirtyItem(key string) (value []byte, known bool) {
	for _, d := range [...]*dirty{v.open, v.syncing} {
		if d == nil {
			continue
		}
		if value, ok := d.items.Get(key); ok {
			return value, true
		}
	}
	return nil, false
}

// itemRun is how many items are looked at together.
const itemRun = 256

// items calls f with the items from one key up to another, which is not among them;
// nil is the end. They are taken in runs, each as it is at some moment.
func (v *volume) items(from, to []byte, f func(key, value []byte) error) error {
	from = bytes.Clone(from)
	for {
		run, next, err := v.itemsFrom(from, to)
		if err != nil {
			return err
		}
		for _, i := range run {
			if err := f(i.Key, i.Value); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// itemsFrom returns the first items from a key on, and where to go on, nil at the
// end.
func (v *volume) itemsFrom(from, to []byte) (run []ItemChange, next []byte, err error) {
	v.pool.view.RLock()
	v.mu.RLock()
	epoch, root := v.pool.epochs.hold(), v.entry.Load().root
	changed, end := v.dirtyItems(string(from), to)
	v.mu.RUnlock()
	v.pool.view.RUnlock()
	defer epoch.release()
	enough := errors.New("enough")
	n := 0
	err = btree.Scan(epoch, root, from, end, func(key, value []byte) error {
		if n++; n > itemRun {
			end = bytes.Clone(key)
			return enough
		}
		if _, ok := changed.Get(string(key)); !ok {
			run = append(run, ItemChange{bytes.Clone(key), bytes.Clone(value)})
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return nil, nil, err
	}
	changed.Scan(func(key string, value itemValue) bool {
		if end != nil && key >= string(end) {
			return false
		}
		if value != nil {
			run = append(run, ItemChange{[]byte(key), bytes.Clone(value)})
		}
		return true
	})
	slices.SortFunc(run, func(a, b ItemChange) int { return bytes.Compare(a.Key, b.Key) })
	if to == nil && end == nil || bytes.Equal(end, to) {
		return run, nil, nil
	}
	return run, end, nil
}

// dirtyItems returns the changes of the txgs under way from a key on, some of them
// at most, and up to where these are all. The view and mu are held.
func (v *volume) dirtyItems(from string, to []byte) (changed *tree.Map[string, itemValue], end []byte) {
	changed, end = &tree.Map[string, itemValue]{}, to
	for _, d := range [...]*dirty{v.syncing, v.open} { // what is newer comes later
		if d == nil {
			continue
		}
		n := 0
		d.items.Ascend(from, func(key string, value itemValue) bool {
			if end != nil && key >= string(end) {
				return false
			}
			if n++; n > itemRun {
				end = []byte(key)
				return false
			}
			changed.Set(key, value)
			return true
		})
	}
	return changed, end
}
