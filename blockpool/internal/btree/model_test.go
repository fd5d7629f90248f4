package btree_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/btree/memstore"
)

var (
	steps = flag.Int("steps", 10_000, "random operations per shape of keys")
	seed  = flag.Uint64("seed", 0, "where their random numbers begin")
)

// records counts what the values of the trees name: the first 8 bytes of a value.
type records struct {
	counts map[uint64]uint64
	next   uint64
	skip   func(op string) bool // forget this change
}

func recordOf(value []byte) uint64 { return binary.BigEndian.Uint64(value) }

func (r *records) Retain(_, value []byte) error {
	id := recordOf(value)
	if r.counts[id] == 0 {
		return fmt.Errorf("retain record %d, which is free: %w", id, memstore.ErrMisuse)
	}
	if r.skip == nil || !r.skip("retain") {
		r.counts[id]++
	}
	return nil
}

func (r *records) Release(_, value []byte) error {
	id := recordOf(value)
	if r.counts[id] == 0 {
		return fmt.Errorf("release record %d, which is free: %w", id, memstore.ErrMisuse)
	}
	if r.skip != nil && r.skip("release") {
		return nil
	}
	if r.counts[id]--; r.counts[id] == 0 {
		delete(r.counts, id)
	}
	return nil
}

// fresh returns a value that names a new record, whose count is one.
func (r *records) fresh(rng *rand.Rand, most int) []byte {
	r.next++
	r.counts[r.next] = 1
	size := 8
	if most > 8 {
		size += rng.IntN(most - 7)
	}
	value := make([]byte, size)
	binary.BigEndian.PutUint64(value, r.next)
	for i := 8; i < len(value); i += 8 {
		value[i] = byte(rng.Uint32())
	}
	return value
}

// A shape says what keys and values look like.
type shape struct {
	name     string
	keys     int
	key      func(i int) []byte
	maxValue int
}

var shapes = []shape{
	{"records of a volume", 3000, func(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }, 24},
	{"names of a directory", 2000, func(i int) []byte { return fmt.Appendf(nil, "object%d/name%d", i%7, i*7919) }, 200},
	{"long shared beginnings", 600, func(i int) []byte {
		return fmt.Appendf(nil, "%s%d", strings.Repeat("p", i*37%250), i)
	}, btree.MaxValueSize},
	{"keys that begin others", 255, func(i int) []byte { return bytes.Repeat([]byte{7}, i) }, 600},
}

// volume is a tree and what must be in it.
type volume struct {
	tree  *btree.Tree
	items map[int][]byte // by number of the key
}

// world is trees that share nodes, and the model of them.
type world struct {
	rng     *rand.Rand
	shape   shape
	store   *memstore.Store
	records *records
	volumes []*volume
	dropped []btree.NodeID // roots, and what is left of them
	sorted  []int          // numbers of the keys in the order of the keys
}

func newWorld(seed uint64, s shape) *world {
	w := &world{
		rng:     rand.New(rand.NewPCG(seed, 99)),
		shape:   s,
		store:   memstore.New(),
		records: &records{counts: map[uint64]uint64{}},
	}
	for i := range s.keys {
		w.sorted = append(w.sorted, i)
	}
	slices.SortFunc(w.sorted, func(a, b int) int { return bytes.Compare(s.key(a), s.key(b)) })
	w.volumes = append(w.volumes, &volume{btree.Open(w.store, w.records, 0), map[int][]byte{}})
	return w
}

// step does one random thing.
func (w *world) step() error {
	v := w.volumes[w.rng.IntN(len(w.volumes))]
	i := w.rng.IntN(w.shape.keys)
	switch op := w.rng.IntN(1000); {
	case op < 550:
		return w.put(v, i)
	case op < 960:
		return w.remove(v, i)
	case op < 963:
		return w.removeRange(v)
	case op < 966:
		for range 300 { // a run of ascending keys
			if err := w.put(v, i); err != nil {
				return err
			}
			i = (i + 1) % w.shape.keys
		}
	case op < 970 && len(w.volumes) < 8:
		if root := v.tree.Root(); root != 0 {
			if err := w.store.Retain(root); err != nil {
				return err
			}
		}
		w.volumes = append(w.volumes, &volume{
			btree.Open(w.store, w.records, v.tree.Root()), maps.Clone(v.items)})
	case op < 973 && len(w.volumes) > 1:
		w.drop(w.rng.IntN(len(w.volumes)))
	case op < 990:
		return w.dropSome(w.rng.IntN(200))
	default:
		return w.store.Commit()
	}
	return nil
}

func (w *world) put(v *volume, i int) error {
	value := w.records.fresh(w.rng, w.shape.maxValue)
	old, err := v.tree.Put(w.shape.key(i), value)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, v.items[i]) {
		return fmt.Errorf("put of key %d returned %x for %x", i, old, v.items[i])
	}
	v.items[i] = value
	if old == nil {
		return nil
	}
	return w.records.Release(nil, old)
}

func (w *world) remove(v *volume, i int) error {
	old, ok, err := v.tree.Delete(w.shape.key(i))
	if err != nil {
		return err
	}
	if want, has := v.items[i]; ok != has || !bytes.Equal(old, want) {
		return fmt.Errorf("delete of key %d returned %x, %v for %x, %v", i, old, ok, want, has)
	}
	if !ok {
		return nil
	}
	delete(v.items, i)
	return w.records.Release(nil, old)
}

var errEnough = errors.New("enough")

func (w *world) removeRange(v *volume) error {
	from := w.rng.IntN(len(w.sorted))
	to := min(from+w.rng.IntN(400), len(w.sorted))
	var end []byte
	if to < len(w.sorted) {
		end = append([]byte{}, w.shape.key(w.sorted[to])...) // not nil, which is no end
	}
	var want []int
	for _, i := range w.sorted[from:to] {
		if _, ok := v.items[i]; ok {
			want = append(want, i)
		}
	}
	limit := w.rng.IntN(500)
	err := v.tree.DeleteRange(w.shape.key(w.sorted[from]), end, func(key, value []byte) error {
		if limit--; limit < 0 {
			return errEnough
		}
		if len(want) == 0 || !bytes.Equal(key, w.shape.key(want[0])) || !bytes.Equal(value, v.items[want[0]]) {
			return fmt.Errorf("range deletes key %x", key)
		}
		delete(v.items, want[0])
		want = want[1:]
		return w.records.Release(key, value)
	})
	if err == nil && len(want) > 0 {
		return fmt.Errorf("range left %d items", len(want))
	}
	if errors.Is(err, errEnough) && limit < 0 {
		return nil
	}
	return err
}

func (w *world) drop(i int) {
	if root := w.volumes[i].tree.Root(); root != 0 {
		w.dropped = append(w.dropped, root)
	}
	w.volumes = slices.Delete(w.volumes, i, i+1)
}

func (w *world) dropSome(budget int) (err error) {
	w.dropped, err = btree.Drop(w.store, w.records, w.dropped, budget)
	return err
}

// recount compares all counts with what refers to what.
func (w *world) recount() error {
	roots := slices.Clone(w.dropped)
	for _, v := range w.volumes {
		roots = append(roots, v.tree.Root())
	}
	found := map[uint64]uint64{}
	errs := w.store.Recount(roots, func(_, value []byte) { found[recordOf(value)]++ })
	if len(errs) > 0 {
		return errs[0]
	}
	if !maps.Equal(found, w.records.counts) {
		return fmt.Errorf("%d records are referred to, and %d are counted, or not as often: %w", len(found), len(w.records.counts), memstore.ErrMisuse)
	}
	return nil
}

// compare reads everything in every way there is.
func (w *world) compare() error {
	for _, v := range w.volumes {
		if err := w.compareVolume(v); err != nil {
			return err
		}
	}
	return w.compareDiff(w.volumes[w.rng.IntN(len(w.volumes))], w.volumes[w.rng.IntN(len(w.volumes))])
}

func (w *world) compareVolume(v *volume) error {
	c := v.tree.Cursor()
	ok := c.First()
	for _, i := range w.sorted {
		want, has := v.items[i]
		got, found, err := v.tree.Get(w.shape.key(i))
		if err != nil || found != has || !bytes.Equal(got, want) {
			return fmt.Errorf("key %d is %x, %v, %v, want %x, %v", i, got, found, err, want, has)
		}
		if !has {
			continue
		}
		if !ok || !bytes.Equal(c.Key(), w.shape.key(i)) || !bytes.Equal(c.Value(), want) {
			return fmt.Errorf("the cursor is at %x, %v, want key %d", c.Key(), ok, i)
		}
		ok = c.Next()
	}
	if ok || c.Err() != nil {
		return fmt.Errorf("the cursor goes on to %x, %v", c.Key(), c.Err())
	}
	ok = c.Last()
	for _, i := range slices.Backward(w.sorted) {
		if _, has := v.items[i]; !has {
			continue
		}
		if !ok || !bytes.Equal(c.Key(), w.shape.key(i)) {
			return fmt.Errorf("backwards the cursor is at %x, %v, want key %d", c.Key(), ok, i)
		}
		ok = c.Prev()
	}
	if ok || c.Err() != nil {
		return fmt.Errorf("backwards the cursor goes on to %x, %v", c.Key(), c.Err())
	}
	return w.compareScan(v)
}

func (w *world) compareScan(v *volume) error {
	from := w.rng.IntN(len(w.sorted))
	to := from + w.rng.IntN(len(w.sorted)-from)
	var want []int
	for _, i := range w.sorted[from:to] {
		if _, ok := v.items[i]; ok {
			want = append(want, i)
		}
	}
	end := append([]byte{}, w.shape.key(w.sorted[to])...)
	err := btree.Scan(w.store, v.tree.Root(), w.shape.key(w.sorted[from]), end, func(key, value []byte) error {
		if len(want) == 0 || !bytes.Equal(key, w.shape.key(want[0])) || !bytes.Equal(value, v.items[want[0]]) {
			return fmt.Errorf("the scan is at %x", key)
		}
		want = want[1:]
		return nil
	})
	if err == nil && len(want) > 0 {
		return fmt.Errorf("the scan left out %d items", len(want))
	}
	return err
}

func (w *world) compareDiff(a, b *volume) error {
	var want []int
	for _, i := range w.sorted {
		if !bytes.Equal(a.items[i], b.items[i]) {
			want = append(want, i)
		}
	}
	var from []byte // as a walk in pieces would
	if w.rng.IntN(2) == 0 && len(w.sorted) > 0 {
		from = w.shape.key(w.sorted[w.rng.IntN(len(w.sorted))])
		want = slices.DeleteFunc(want, func(i int) bool { return bytes.Compare(w.shape.key(i), from) < 0 })
	}
	err := btree.DiffFrom(w.store, a.tree.Root(), b.tree.Root(), from, func(key, x, y []byte) error {
		if len(want) == 0 || !bytes.Equal(key, w.shape.key(want[0])) {
			return fmt.Errorf("the difference has key %x", key)
		}
		i := want[0]
		if !bytes.Equal(x, a.items[i]) || !bytes.Equal(y, b.items[i]) {
			return fmt.Errorf("the difference at key %d is %x and %x", i, x, y)
		}
		want = want[1:]
		return nil
	})
	if err == nil && len(want) > 0 {
		return fmt.Errorf("the difference left out %d keys", len(want))
	}
	return err
}

// finish drops everything, after which nothing may be left.
func (w *world) finish() error {
	for len(w.volumes) > 0 {
		w.drop(0)
	}
	for len(w.dropped) > 0 {
		if err := w.dropSome(50); err != nil {
			return err
		}
	}
	if w.store.Len() != 0 || len(w.records.counts) != 0 {
		return fmt.Errorf("%d nodes and %d records are left: %w", w.store.Len(), len(w.records.counts), memstore.ErrMisuse)
	}
	return w.store.Commit()
}

// run does steps, with a recount after every few.
func (w *world) run(steps, recount, compare int) error {
	for i := range steps {
		if err := w.step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if i%recount == 0 {
			if err := w.recount(); err != nil {
				return fmt.Errorf("after step %d: %w", i, err)
			}
		}
		if i%compare == 0 {
			if err := w.compare(); err != nil {
				return fmt.Errorf("after step %d: %w", i, err)
			}
		}
	}
	return w.finish()
}

func TestTreesKeepWhatIsPutAndCountWhatTheyShare(t *testing.T) {
	for i, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if err := newWorld(*seed+uint64(i), s).run(*steps, 1000, 2000); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCountsAreRightAfterEverySingleStep(t *testing.T) {
	for i, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if err := newWorld(uint64(100+i), s).run(400, 1, 50); err != nil {
				t.Fatal(err)
			}
		})
	}
}
