package union

import (
	"hash/maphash"
	"math"
	"slices"
	"sort"
)

// An entry is a name in a directory of the union.
type entry struct {
	name string
	node *Node  // nil until someone asked for it
	ino  uint64 // as listed; the node's own number counts where there is one
	seq  uint32 // age, from 1, see pos; 0: free
	refs uint32 // references given out without a node, see virtual.go
	typ  uint16 // S_IFMT bits
	part int16  // which part of the directory provides it: 0 the upper, n the n-th lower
}

// listTop is the position behind which the listing of the oldest entry would
// stand. Positions fit into the offsets of 32-bit programs.
const (
	listTop = 1 << 31
	posMask = 1<<33 - 1
)

// pos returns the position behind the entry in a listing.
func (e *entry) pos() uint64 { return (listTop - uint64(e.seq)) & posMask }

// dirTable maps the names of a directory to its entries and keeps the order of
// the listing. Entries are only appended, and keep their place until they are
// removed; a listing goes from the last one to the first. So a reader that goes
// on from where it was sees each name that stays exactly once, whatever else
// comes and goes, and does not meet what is made meanwhile.
type dirTable struct {
	entries []entry // by seq, the oldest first; removed ones stay as holes until compact
	index   []int32 // open addressing: 1 + place in entries, 0 free
	live    int
	nodes   int // entries that have one
	lastSeq uint32
	// complete: what the table does not have does not exist.
	complete bool
}

var tableSeed = maphash.MakeSeed()

func hashName(name string) uint64 { return maphash.String(tableSeed, name) }

// get returns the entry of a name, nil if the table has none. The pointer is
// valid until the next change of the table.
func (t *dirTable) get(name string) *entry {
	if len(t.index) == 0 {
		return nil
	}
	mask := uint64(len(t.index) - 1)
	for i := hashName(name) & mask; ; i = (i + 1) & mask {
		switch k := t.index[i]; {
		case k == 0:
			return nil
		case t.entries[k-1].seq != 0 && t.entries[k-1].name == name:
			return &t.entries[k-1]
		}
	}
}

// put adds an entry at the start of the listing, or changes the one that has the
// name in its place.
func (t *dirTable) put(e entry) *entry {
	if e.node != nil {
		t.nodes++
	}
	if old := t.get(e.name); old != nil {
		if old.node != nil {
			t.nodes--
		}
		e.seq = old.seq
		if e.node == nil {
			e.refs = old.refs
		}
		*old = e
		return old
	}
	if len(t.index) == 0 || (len(t.entries)+1)*4 > len(t.index)*3 {
		t.rebuild()
	}
	if t.lastSeq++; t.lastSeq == listTop {
		t.lastSeq++ // its position would be the start
	}
	e.seq = t.lastSeq
	t.entries = append(t.entries, e)
	t.insert(int32(len(t.entries)))
	t.live++
	return &t.entries[len(t.entries)-1]
}

// reverse turns the order of the entries younger than seq around, and thus lists
// a directory in the order in which its parts were read. Nobody may know a
// position among them yet.
func (t *dirTable) reverse(seq uint32) {
	if t.live < len(t.entries) {
		t.rebuild() // a hole among them would come to life
	}
	young := t.entries[t.after(seq):]
	slices.Reverse(young)
	for i := range young {
		j := len(young) - 1 - i
		if i < j {
			young[i].seq, young[j].seq = young[j].seq, young[i].seq
		}
	}
	t.rebuild()
}

// listFrom returns the index in entries of the first one that a listing shows
// from a position on, -1 if there is none.
func (t *dirTable) listFrom(pos uint64) int {
	if pos == 0 {
		return len(t.entries) - 1
	}
	seq := (listTop - pos) & posMask
	if seq == 0 || seq > math.MaxUint32 {
		return -1
	}
	return t.after(uint32(seq)-1) - 1
}

// reserve makes room for n entries in a table that has none.
func (t *dirTable) reserve(n int) {
	if len(t.entries) > 0 || n == 0 {
		return
	}
	t.entries = make([]entry, 0, n)
}

// clone returns a copy that can be changed, and dropped, on its own.
func (t *dirTable) clone() dirTable {
	c := *t
	c.entries, c.index = slices.Clone(t.entries), slices.Clone(t.index)
	return c
}

func (t *dirTable) insert(k int32) {
	mask := uint64(len(t.index) - 1)
	i := hashName(t.entries[k-1].name) & mask
	for t.index[i] != 0 {
		i = (i + 1) & mask
	}
	t.index[i] = k
}

// rebuild drops the holes and makes room. Places in the listing stay.
func (t *dirTable) rebuild() {
	kept := t.entries
	if t.live < len(t.entries) {
		kept = make([]entry, 0, t.live+t.live/2+4)
		for i := range t.entries {
			if t.entries[i].seq != 0 {
				kept = append(kept, t.entries[i])
			}
		}
	}
	t.entries = kept
	size := 8
	for size*3 < (len(kept)+1)*5 {
		size *= 2
	}
	t.index = make([]int32, size)
	for k := range kept {
		t.insert(int32(k + 1))
	}
}

// remove takes a name out.
func (t *dirTable) remove(name string) {
	e := t.get(name)
	if e == nil {
		return
	}
	if e.node != nil {
		t.nodes--
	}
	*e = entry{name: e.name} // the hole keeps its name for the index
	t.live--
	if t.live == 0 {
		// Positions go on counting, so that a reader is not led astray.
		t.entries, t.index = nil, nil
	}
}

// detach forgets the node of a name: a complete table still lists the name.
func (t *dirTable) detach(name string, n *Node) {
	e := t.get(name)
	if e == nil || e.node != n {
		return
	}
	if t.complete {
		e.ino, e.node = n.Ino(), nil
		t.nodes--
		if n.isUpper() {
			e.part = 0
		}
		return
	}
	t.remove(name)
}

// at returns the entry at a position, nil if it was removed.
func (t *dirTable) at(seq uint32) *entry {
	i := t.after(seq - 1)
	for ; i < len(t.entries) && t.entries[i].seq == 0; i++ {
	}
	if i == len(t.entries) || t.entries[i].seq != seq {
		return nil
	}
	return &t.entries[i]
}

// after returns the index in entries of the first one behind position seq.
func (t *dirTable) after(seq uint32) int {
	// Holes have seq 0, so search among the neighbours' order by index: live
	// entries ascend, and a hole takes the order of what precedes it.
	if seq == 0 {
		return 0
	}
	n := len(t.entries)
	return sort.Search(n, func(i int) bool {
		for j := i; j < n; j++ {
			if s := t.entries[j].seq; s != 0 {
				return s > seq
			}
		}
		return true
	})
}
