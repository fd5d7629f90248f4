package blockpool

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// hierarchy is the tree of names, for limits that count what lies below. It holds
// what is committed, and what was admitted since.
//
//	tank                 used + below = what its quota limits
//	├── home             reservation: it counts for at least that much above
//	│   ├── home/ann     pending of ann is pending of home too
//	│   └── home@monday
//	└── vm
//
// A write asks the limits of its dataset and of those above it, so it costs in
// proportion to the depth, and nothing where there is no limit. A commit changes the
// sums above the datasets that it has changed; only a dataset that gets another name,
// or one that comes or goes between others, has all of them counted anew.
type hierarchy struct {
	mu       sync.RWMutex // a leaf
	branches map[uint64]*branch
	promised map[int64]int64 // sectors that are reserved and not used, by record size
}

// A branch is a volume, dataset or snapshot in the hierarchy.
type branch struct {
	tree *hierarchy
	own  atomic.Int64 // bytes that were admitted and are not committed
	all  atomic.Int64 // the same, with those of all below

	// Guarded by tree.mu.
	up    *branch // the nearest above that there is; nil: the pool
	e     *entry  // as it was counted last
	below int64   // bytes that those below count for
	sons  int
}

// Load returns the bytes of its own that were admitted and are not committed.
func (b *branch) Load() int64 { return b.own.Load() }

// Add counts bytes as admitted.
func (b *branch) Add(n int64) {
	b.tree.mu.RLock()
	defer b.tree.mu.RUnlock()
	b.own.Add(n)
	for a := b; a != nil; a = a.up {
		a.all.Add(n)
	}
}

// countsLocked returns the bytes that a branch counts for above.
func (b *branch) countsLocked() int64 { return max(b.e.used+b.below, b.e.reservation) }

// unfilledLocked returns the bytes that are reserved for a branch and that neither it
// nor what is below it uses.
func (b *branch) unfilledLocked() int64 { return max(b.e.reservation-b.e.used-b.below, 0) }

// limited reports whether a write has any limit to ask.
func (b *branch) limited() bool {
	b.tree.mu.RLock()
	defer b.tree.mu.RUnlock()
	if b.e == nil {
		return false
	}
	if b.e.refquota != 0 {
		return true
	}
	for a := b; a != nil; a = a.up {
		if a.e.quota != 0 {
			return true
		}
	}
	return false
}

// over returns the nearest whose quota has no room for n more bytes of this branch,
// or nil. What a reservation below it keeps for them is counted there already.
//
// What is pending below counts in full, also where a reservation covers it: who is
// refused asks again after a txg, when nothing is.
func (b *branch) over(n int64) *entry {
	b.tree.mu.RLock()
	defer b.tree.mu.RUnlock()
	for a := b; a != nil && a.e != nil; a = a.up {
		if q := a.e.quota; q != 0 && a.e.used+a.below+a.all.Load()+n > q {
			return a.e
		}
		n -= min(n, a.unfilledLocked())
	}
	return nil
}

// promisedTo returns the sectors that are kept free for it: by its reservation, and by
// those above it.
func (b *branch) promisedTo() (sectors int64) {
	b.tree.mu.RLock()
	defer b.tree.mu.RUnlock()
	for a := b; a != nil && a.e != nil; a = a.up {
		sectors += format.Sectors(a.unfilledLocked())
	}
	return sectors
}

// growth returns how much more of the pool a reservation for e takes: what is
// reserved above it is not taken again. It fails with [ErrQuota] where one above has
// no room for it.
func (c *catalogue) growth(e *entry, reservation int64) (int64, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := &c.tree
	h.mu.RLock()
	defer h.mu.RUnlock()
	below, above := int64(0), c.aboveLocked(e.name)
	if b := h.branches[e.id]; b != nil {
		below = b.below
	}
	n := max(reservation-max(e.reservation, e.used+below), 0)
	for a := above; a != nil && n > 0; a = a.up {
		if a.e.quota != 0 && a.e.used+a.below+n > a.e.quota {
			return 0, fmt.Errorf("reservation of %d bytes: %s has a quota of %d and uses %d: %w", reservation, a.e.name, a.e.quota, a.e.used+a.below, ErrQuota)
		}
		n -= min(n, a.unfilledLocked())
	}
	return n, nil
}

// room returns how many bytes could be written to a branch by its limits and those
// above it, of free bytes of the pool that are promised to nobody.
func (b *branch) room(free int64) int64 {
	b.tree.mu.RLock()
	defer b.tree.mu.RUnlock()
	least, credit := int64(maxVolumeSize), int64(0)
	for a := b; a != nil && a.e != nil; a = a.up {
		if a.e.quota != 0 {
			least = min(least, a.e.quota-a.e.used-a.below-a.all.Load()+credit)
		}
		credit += a.unfilledLocked()
	}
	if b.e != nil && b.e.refquota != 0 {
		least = min(least, b.e.refquota-b.e.referenced-b.own.Load())
	}
	return max(min(least, free+credit), 0)
}

// usage returns the bytes that a branch uses with all below it, and those that the
// latter count for.
func (b *branch) usage() (used, below int64) {
	b.tree.mu.RLock()
	defer b.tree.mu.RUnlock()
	if b.e == nil {
		return 0, 0
	}
	return b.e.used + b.below, b.below
}

// promiseLocked counts what is reserved for a branch and not used, or with a sign of
// -1 no more.
func (h *hierarchy) promiseLocked(b *branch, sign int64) {
	if n := format.Sectors(b.unfilledLocked()); n != 0 {
		if h.promised[b.e.recordSize] += sign * n; h.promised[b.e.recordSize] == 0 {
			delete(h.promised, b.e.recordSize)
		}
	}
}

// hang attaches a branch that has none below it.
func (h *hierarchy) hangLocked(b, up *branch) {
	h.promiseLocked(b, 1)
	b.up = up
	if up == nil {
		return
	}
	up.sons++
	h.raiseLocked(up, b.countsLocked())
	for a := up; a != nil; a = a.up {
		a.all.Add(b.all.Load())
	}
}

// cutLocked takes away a branch that has none below it.
func (h *hierarchy) cutLocked(b *branch) {
	h.promiseLocked(b, -1)
	up := b.up
	b.up = nil
	if up == nil {
		return
	}
	up.sons--
	h.raiseLocked(up, -b.countsLocked())
	for a := up; a != nil; a = a.up {
		a.all.Add(-b.all.Load())
	}
}

// raiseLocked changes what those below a branch count for by n bytes.
func (h *hierarchy) raiseLocked(b *branch, n int64) {
	for ; b != nil && n != 0; b = b.up {
		counts := b.countsLocked()
		h.promiseLocked(b, -1)
		b.below += n
		h.promiseLocked(b, 1)
		n = b.countsLocked() - counts
	}
}

// replaceLocked notes other numbers of a branch that keeps its name.
func (h *hierarchy) replaceLocked(b *branch, e *entry) {
	counts := b.countsLocked()
	h.promiseLocked(b, -1)
	b.e = e
	h.promiseLocked(b, 1)
	h.raiseLocked(b.up, b.countsLocked()-counts)
}

// settle brings the hierarchy up to date after a commit has changed entries; nil is
// one that is gone. It returns the sectors that are promised now, by record size.
func (c *catalogue) settle(changed map[uint64]*entry) (promised map[int64]int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := &c.tree
	h.mu.Lock()
	defer h.mu.Unlock()
	anew := false
	for id, e := range changed {
		b := h.branches[id]
		switch {
		case e == nil && b == nil: // made and destroyed in one txg
		case e == nil:
			delete(h.branches, id)
			if b.sons > 0 {
				anew = true
			} else {
				h.cutLocked(b)
			}
		case b == nil:
			b = &c.byID[id].pending
			b.e = e
			h.branches[id] = b
			anew = anew || e.kind != KindSnapshot && c.hasBelowLocked(e.name)
			if !anew {
				h.hangLocked(b, c.aboveLocked(e.name))
			}
		case b.e.name != e.name:
			b.e, anew = e, true
		case !anew:
			h.replaceLocked(b, e)
		default:
			b.e = e
		}
	}
	if anew {
		c.countAnewLocked()
	}
	return maps.Clone(h.promised)
}

// countAnew makes the hierarchy of a catalogue that was read, and returns the sectors
// that are promised, by record size.
func (c *catalogue) countAnew() (promised map[int64]int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.tree.mu.Lock()
	defer c.tree.mu.Unlock()
	c.countAnewLocked()
	return maps.Clone(c.tree.promised)
}

// countAnewLocked makes the hierarchy from the entries.
func (c *catalogue) countAnewLocked() {
	h := &c.tree
	list := make([]*branch, 0, len(h.branches))
	h.promised = map[int64]int64{}
	for id, v := range c.byID {
		b := &v.pending
		h.branches[id] = b
		b.e, b.up, b.below, b.sons = v.entry.Load(), nil, 0, 0
		b.all.Store(b.own.Load())
		list = append(list, b)
	}
	// The deepest first: what lies below counts once it is complete.
	depth := func(b *branch) int { return strings.Count(b.e.name, "/")*2 + strings.Count(b.e.name, "@") }
	slices.SortFunc(list, func(a, b *branch) int { return cmp.Compare(depth(b), depth(a)) })
	for _, b := range list {
		h.promiseLocked(b, 1)
		if b.up = c.aboveLocked(b.e.name); b.up != nil {
			b.up.sons++
			b.up.below += b.countsLocked()
			b.up.all.Add(b.all.Load())
		}
	}
}

// aboveLocked returns the branch of the nearest that there is above a name, or nil.
func (c *catalogue) aboveLocked(name string) *branch {
	for name = above(name); name != ""; name = above(name) {
		if v := c.byName[name]; v != nil {
			return &v.pending
		}
	}
	return nil
}

// hasBelowLocked reports whether there is a name below that one, or a snapshot of it.
func (c *catalogue) hasBelowLocked(name string) bool {
	for n := range c.byName {
		if isBelow(n, name) {
			return true
		}
	}
	return false
}

// above returns the name above one: of a/b@s it is a/b, then a, then "", the pool.
func above(name string) string { return name[:max(strings.LastIndexAny(name, "/@"), 0)] }

// isBelow reports whether a name is that of a dataset or snapshot below another one.
// Everything is below the pool, which has no name.
func isBelow(name, above string) bool {
	if above == "" {
		return name != ""
	}
	return len(name) > len(above)+1 && (name[len(above)] == '/' || name[len(above)] == '@') && name[:len(above)] == above
}
