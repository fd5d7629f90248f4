// Package memtree is a tree of the pool in memory, for tests of filesystems in
// trees: it can fail any change, go back to the state after any of them, as a crash
// would, and make snapshots. It refuses what the pool's contract forbids.
package memtree

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

// A Tree is a tree in memory.
type Tree struct {
	name       string
	id         uint64
	recordSize int
	readOnly   bool

	mu      sync.RWMutex
	state   state
	durable uint64  // items that were counted when all was durable last
	history []state // after each change, the first one being the beginning
	flushed int     // how many of them power loss would not undo
	before  func(n int, b *blockpool.Batch) error
	room    uint64 // bytes of records that there may be
	closed  bool
	forget  bool
}

// state is what a tree has.
type state struct {
	root    *node
	counted uint64
	bytes   uint64
}

var _ dataset.Tree = (*Tree)(nil)

// New returns an empty tree.
func New(name string, id uint64, recordSize int) *Tree {
	return &Tree{name: name, id: id, recordSize: recordSize, history: make([]state, 1), room: 1 << 50}
}

// Before sets what is called before each change, with the number of the change,
// from 1 on. An error keeps the change from being made.
func (t *Tree) Before(f func(n int, b *blockpool.Batch) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = f
}

// SetRoom sets how many bytes of records there may be: ErrNoSpace past it.
func (t *Tree) SetRoom(n uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room = n
}

// KeepNoHistory saves the memory that going back would need.
func (t *Tree) KeepNoHistory() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget, t.history = true, nil
}

// Steps returns how many changes were made.
func (t *Tree) Steps() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.history) - 1
}

// Flushed returns how many of them power loss would not undo.
func (t *Tree) Flushed() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.flushed
}

// Crash returns a tree that has the first n changes.
func (t *Tree) Crash(n int) *Tree {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.with(t.name, t.id, t.history[n])
}

// Clone returns another tree with the same content.
func (t *Tree) Clone(name string, id uint64) *Tree {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.with(name, id, t.state)
}

// Snapshot is Clone for a tree that never changes.
func (t *Tree) Snapshot(name string, id uint64) *Tree {
	s := t.Clone(name, id)
	s.readOnly = true
	return s
}

func (t *Tree) with(name string, id uint64, s state) *Tree {
	return &Tree{name: name, id: id, recordSize: t.recordSize, state: s, durable: s.counted, history: []state{s}, room: t.room}
}

func (t *Tree) Name() string    { return t.name }
func (t *Tree) ID() uint64      { return t.id }
func (t *Tree) RecordSize() int { return t.recordSize }
func (t *Tree) ReadOnly() bool  { return t.readOnly }

func (t *Tree) now() (state, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.closed {
		return state{}, blockpool.ErrClosed
	}
	return t.state, nil
}

// Objects returns what was counted when everything was durable last, as the pool
// does: before [Tree.ShareRecords] and when the tree was made.
func (t *Tree) Objects() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.durable
}

// Counted returns how many items are counted now.
func (t *Tree) Counted() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.state.counted
}

func (t *Tree) Space() blockpool.Space {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return blockpool.Space{Referenced: int64(t.state.bytes), Used: int64(t.state.bytes), Available: int64(t.room - min(t.room, t.state.bytes))}
}

// Close makes the tree refuse everything. Open lets it be used anew.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}

// Open returns the tree, usable again after Close.
func (t *Tree) Open() *Tree {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = false
	return t
}

func (t *Tree) Item(key []byte) ([]byte, error) {
	s, err := t.now()
	if err != nil {
		return nil, err
	}
	v, _ := s.root.get(string(key))
	return bytes.Clone(v), nil
}

func (t *Tree) Items(from, to []byte, f func(key, value []byte) error) error {
	s, err := t.now()
	if err != nil {
		return err
	}
	s.root.ascend(string(from), string(to), func(n *node) bool {
		key, value := []byte(n.key), bytes.Clone(n.value)
		err = f(key, value)
		clear(key) // they were valid during the call only
		clear(value)
		return err == nil
	})
	return err
}

func recordKey(object, number uint64) string {
	return string(binary.BigEndian.AppendUint64(nil, object<<32+number))
}

func (t *Tree) ReadObject(object uint64, p []byte, off int64) error {
	s, err := t.now()
	if err != nil {
		return err
	}
	clear(p)
	size := int64(t.recordSize)
	end := off + int64(len(p))
	s.root.ascend(recordKey(object, uint64(off/size)), recordKey(object+1, 0), func(n *node) bool {
		at := int64(binary.BigEndian.Uint64([]byte(n.key))&(1<<32-1)) * size
		if at >= end {
			return false
		}
		if at < off {
			if off-at < int64(len(n.value)) {
				copy(p, n.value[off-at:])
			}
		} else {
			copy(p[at-off:], n.value)
		}
		return true
	})
	return nil
}

func (t *Tree) NextRecords(object, from uint64) (first, end uint64, err error) {
	s, err := t.now()
	if err != nil {
		return 0, 0, err
	}
	s.root.ascend(recordKey(object, from), recordKey(object+1, 0), func(n *node) bool {
		number := binary.BigEndian.Uint64([]byte(n.key)) & (1<<32 - 1)
		if end == 0 {
			first, end = number, number
		}
		if number != end {
			return false
		}
		end++
		return true
	})
	return first, end, nil
}

func (t *Tree) Apply(_ context.Context, b *blockpool.Batch) error {
	return t.change(b, func(*state) error { return nil })
}

func (t *Tree) ShareRecords(_ context.Context, b *blockpool.Batch, from dataset.Tree, sh blockpool.Share) error {
	src, err := from.(*Tree).now()
	if err != nil {
		return err
	}
	if len(b.Writes)+len(b.Zeros) > 0 {
		return fmt.Errorf("memtree: a batch of more than items: %w", blockpool.ErrInvalid)
	}
	if sh.SrcObject == sh.DstObject && from == dataset.Tree(t) && sh.Src < sh.Dst+sh.N && sh.Dst < sh.Src+sh.N {
		return fmt.Errorf("memtree: shares overlap: %w", blockpool.ErrInvalid)
	}
	err = t.change(b, func(s *state) error {
		s.dropRecords(sh.DstObject, sh.Dst, sh.Dst+sh.N)
		src.root.ascend(recordKey(sh.SrcObject, sh.Src), recordKey(sh.SrcObject, sh.Src+sh.N), func(n *node) bool {
			number := binary.BigEndian.Uint64([]byte(n.key)) & (1<<32 - 1)
			s.putRecord(sh.DstObject, number-sh.Src+sh.Dst, n.value)
			return true
		})
		return nil
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.durable = t.state.counted
	t.mu.Unlock()
	return t.Flush(context.Background())
}

func (t *Tree) Flush(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return blockpool.ErrClosed
	}
	t.flushed = len(t.history) - 1
	return nil
}

func (t *Tree) change(b *blockpool.Batch, also func(*state) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return blockpool.ErrClosed
	case t.readOnly:
		return blockpool.ErrReadOnly
	}
	if t.before != nil {
		if err := t.before(len(t.history), b); err != nil {
			return err
		}
	}
	if err := t.check(b); err != nil {
		return err
	}
	s := t.state
	if err := also(&s); err != nil {
		return err
	}
	for _, z := range b.Zeros {
		t.zero(&s, z)
	}
	for _, w := range b.Writes {
		t.write(&s, w)
	}
	for _, i := range b.Items {
		s.putItem(i)
	}
	if s.bytes > t.room && s.bytes > t.state.bytes {
		return blockpool.ErrNoSpace
	}
	t.state = s
	if !t.forget {
		t.history = append(t.history, s)
	}
	return nil
}

// check refuses what the parts of a batch must not be.
func (t *Tree) check(b *blockpool.Batch) error {
	seen := map[string]bool{}
	for _, i := range b.Items {
		switch key := string(i.Key); {
		case key == "" || key[0] < blockpool.ItemCounted || len(key) > blockpool.MaxItemKey || len(i.Value) > blockpool.MaxItemValue:
			return fmt.Errorf("memtree: item %x of %d bytes: %w", key, len(i.Value), blockpool.ErrInvalid)
		case seen[key]:
			return fmt.Errorf("memtree: item %x twice: %w", key, blockpool.ErrInvalid)
		default:
			seen[key] = true
		}
	}
	var spans []span
	size := int64(t.recordSize)
	add := func(object uint64, off, n int64) error {
		if n == blockpool.ToEnd {
			n = size<<32 - off
		}
		if object == 0 || object > blockpool.MaxObject || off < 0 || n < 0 || off > size<<32-n {
			return fmt.Errorf("memtree: %d bytes at %d of object %d: %w", n, off, object, blockpool.ErrInvalid)
		}
		if n > 0 {
			spans = append(spans, span{object<<32 + uint64(off/size), object<<32 + uint64((off+n+size-1)/size)})
		}
		return nil
	}
	for _, w := range b.Writes {
		if err := add(w.Object, w.Offset, int64(len(w.Data))); err != nil {
			return err
		}
	}
	for _, z := range b.Zeros {
		if err := add(z.Object, z.Offset, z.Length); err != nil {
			return err
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(spans); i++ {
		if spans[i].first < spans[i-1].end {
			return fmt.Errorf("memtree: record %x is changed twice: %w", spans[i].first, blockpool.ErrInvalid)
		}
	}
	return nil
}

// span is records in a row, numbered over all objects.
type span struct{ first, end uint64 }

func (s *state) putItem(i blockpool.ItemChange) {
	key := string(i.Key)
	_, had := s.root.get(key)
	if i.Value == nil {
		if s.root = s.root.remove(key); had && key[0] == blockpool.ItemCounted {
			s.counted--
		}
		return
	}
	if s.root = s.root.put(key, bytes.Clone(i.Value)); !had && key[0] == blockpool.ItemCounted {
		s.counted++
	}
}

func (s *state) putRecord(object, number uint64, value []byte) {
	key := recordKey(object, number)
	old, _ := s.root.get(key)
	s.bytes += uint64(len(value)) - uint64(len(old))
	s.root = s.root.put(key, value)
}

func (s *state) dropRecords(object, from, to uint64) {
	first, last := recordKey(object, from), recordKey(object, to)
	s.root.ascend(first, last, func(n *node) bool {
		s.bytes -= uint64(len(n.value))
		return true
	})
	s.root = s.root.removeRange(first, last)
}

func (t *Tree) write(s *state, w blockpool.ObjectWrite) {
	size := int64(t.recordSize)
	for p, off := w.Data, w.Offset; len(p) > 0; {
		number, within := uint64(off/size), off%size
		k := min(int64(len(p)), size-within)
		old, _ := s.root.get(recordKey(w.Object, number))
		rec := make([]byte, max(int64(len(old)), within+k))
		copy(rec, old)
		copy(rec[within:], p[:k])
		s.putRecord(w.Object, number, rec)
		p, off = p[k:], off+k
	}
}

func (t *Tree) zero(s *state, z blockpool.ObjectRange) {
	size := int64(t.recordSize)
	first, last := uint64((z.Offset+size-1)/size), uint64(1)<<32
	if z.Length != blockpool.ToEnd {
		last = uint64((z.Offset + z.Length) / size)
	}
	if first < last {
		// The key of record 2³² is that of the next object's first one.
		s.dropRecords(z.Object, first, last)
	}
	part := func(off, n int64) { // within one record
		key := recordKey(z.Object, uint64(off/size))
		if old, ok := s.root.get(key); ok && off%size < int64(len(old)) {
			rec := bytes.Clone(old)
			clear(rec[off%size : min(off%size+n, int64(len(rec)))])
			s.putRecord(z.Object, uint64(off/size), rec)
		}
	}
	end := z.Offset + z.Length
	if z.Length == blockpool.ToEnd {
		end = int64(last) * size
	}
	if head := z.Offset % size; head > 0 {
		part(z.Offset, min(size-head, end-z.Offset))
	}
	if tail := end % size; tail > 0 && end/size >= (z.Offset+size-1)/size {
		part(end-tail, tail)
	}
}

// SetItem changes an item behind the back of whoever uses the tree, as damage does.
func (t *Tree) SetItem(key, value []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state.putItem(blockpool.ItemChange{Key: key, Value: value})
}

// DiffFrom calls f with each key whose value is another one in old.
func (t *Tree) DiffFrom(old dataset.Tree, f func(key, old, new []byte) error) (err error) {
	a, err := old.(*Tree).now()
	if err != nil {
		return err
	}
	b, err := t.now()
	if err != nil {
		return err
	}
	list := func(s state) (all []*node) {
		s.root.ascend("", "", func(n *node) bool { all = append(all, n); return true })
		return all
	}
	x, y := list(a), list(b)
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && x[0].key < y[0].key:
			err = f([]byte(x[0].key), x[0].value, nil)
			x = x[1:]
		case len(x) == 0 || x[0].key > y[0].key:
			err = f([]byte(y[0].key), nil, y[0].value)
			y = y[1:]
		default:
			if !bytes.Equal(x[0].value, y[0].value) {
				err = f([]byte(x[0].key), x[0].value, y[0].value)
			}
			x, y = x[1:], y[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ErrFailed is an error for changes that are to fail.
var ErrFailed = fmt.Errorf("memtree: a change that was to fail: %w", unix.EIO)
