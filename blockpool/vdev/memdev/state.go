package memdev

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"sort"
)

// A state is replayed from the last checkpoint before it, so these bound its
// cost. A checkpoint takes memory for the pages that changed since the last.
const (
	checkpointEntries = 64
	checkpointBytes   = 1 << 20
)

// A checkpoint holds all devices after the first at entries.
type checkpoint struct {
	at      int
	devices []saved
}

// saved is a device at a checkpoint. Its images are never changed.
type saved struct {
	path          string
	live, durable *image
	pending       []int
}

func (j *Journal) saveLocked() {
	c := checkpoint{at: len(j.entries), devices: make([]saved, len(j.devices))}
	for i, d := range j.devices {
		c.devices[i] = saved{path: d.path, live: d.live.fork(), durable: d.durable.fork(), pending: d.pending[:len(d.pending):len(d.pending)]}
	}
	j.checkpoints, j.unsaved = append(j.checkpoints, c), 0
}

// A State is what a crash left behind.
type State struct {
	// Journal is the host with its devices, all of them closed, whole and
	// without faults. It records what is done to them from now on.
	Journal *Journal
	// At is how many entries had happened.
	At int
	// Seed says what was lost: nothing if it is 0.
	Seed uint64

	of             *Journal
	marks, foreign []any
}

func (s *State) String() string {
	return fmt.Sprintf("state after %d of %d entries, seed %#x", s.At, s.of.Len(), s.Seed)
}

// Marks returns the values of [Journal.Mark] before the crash, in order. The
// slice is shared and not to be changed.
func (s *State) Marks() []any { return s.marks }

// Foreign returns the values of [Journal.Add] before the crash, in order. The
// slice is shared and not to be changed.
func (s *State) Foreign() []any { return s.foreign }

// State returns what is there after a crash when at entries had happened. With
// seed 0 that is everything; else the seed chooses what remains of what devices
// had not made durable. It panics if there are not so many entries.
func (j *Journal) State(at int, seed uint64) *State {
	j.mu.RLock()
	if at < 0 || at > len(j.entries) {
		j.mu.RUnlock()
		panic(fmt.Sprintf("memdev: state after %d of %d entries", at, len(j.entries)))
	}
	entries, marks, foreign := j.entries[:at:at], j.marks.before(at), j.foreign.before(at)
	c := j.checkpoints[sort.Search(len(j.checkpoints), func(i int) bool { return j.checkpoints[i].at > at })-1]
	j.mu.RUnlock()

	var devices []saved
	if seed == 0 {
		devices = replayAll(c, entries)
	} else {
		devices = replayDurable(c, entries)
		for i, d := range devices {
			settle(d.durable, d.pending, entries, newRand(seed, uint64(i)))
			devices[i].live = d.durable
		}
	}
	return &State{Journal: newHost(devices), At: at, Seed: seed, of: j, marks: marks, foreign: foreign}
}

// Prefixes yields the state after every entry, from none to all so far, with
// everything that was written: the process was killed, the machine was not.
func (j *Journal) Prefixes() iter.Seq[*State] {
	return func(yield func(*State) bool) {
		for at := range j.Len() + 1 {
			if !yield(j.State(at, 0)) {
				return
			}
		}
	}
}

// CrashStates yields, without end, states after power failures at random places
// of what was recorded up to its call. Each can be had again by its At and Seed.
func (j *Journal) CrashStates(seed uint64) iter.Seq[*State] {
	n := j.Len()
	return func(yield func(*State) bool) {
		for rng := newRand(seed, 1<<32); ; {
			if !yield(j.State(rng.IntN(n+1), rng.Uint64()|1)) {
				return
			}
		}
	}
}

// newHost returns a journal whose devices begin with the given live images.
func newHost(devices []saved) *Journal {
	j := NewJournal()
	for i, s := range devices {
		live := s.live
		j.devices = append(j.devices, &Device{journal: j, path: s.path, index: i, live: live, durable: live.fork()})
	}
	j.checkpoints = nil
	j.saveLocked()
	return j
}

// replayAll returns the devices with all that was written, in live.
func replayAll(c checkpoint, entries []Entry) []saved {
	devices := make([]saved, 0, len(c.devices))
	for _, d := range c.devices {
		devices = append(devices, saved{path: d.path, live: d.live.fork()})
	}
	for i := c.at; i < len(entries); i++ {
		switch e := &entries[i]; e.Kind {
		case Create:
			devices = append(devices, saved{path: e.Path, live: &image{size: e.Len}})
		case Pulled:
			devices[e.device].live = e.image.fork()
		case Write, Discard, Grow, Damage:
			e.apply(devices[e.device].live)
		}
	}
	return devices
}

// replayDurable returns the devices with what is certain, in durable, and what
// is not, in pending.
func replayDurable(c checkpoint, entries []Entry) []saved {
	devices := make([]saved, 0, len(c.devices))
	for _, d := range c.devices {
		devices = append(devices, saved{path: d.path, durable: d.durable.fork(), pending: d.pending})
	}
	for i := c.at; i < len(entries); i++ {
		e := &entries[i]
		switch e.Kind {
		case Create:
			devices = append(devices, saved{path: e.Path, durable: &image{size: e.Len}})
			continue
		case Mark, Foreign, Lie:
			continue
		}
		switch d := &devices[e.device]; e.Kind {
		case Sync:
			for _, k := range d.pending {
				entries[k].apply(d.durable)
			}
			d.pending = nil
		case Pulled:
			d.durable, d.pending = e.image.fork(), nil
		case Damage:
			e.apply(d.durable)
		default:
			d.pending = append(d.pending, i)
		}
	}
	return devices
}

// apply does to an image what the entry says, as far as its size allows.
func (e *Entry) apply(m *image) { e.applyPart(m, e.Off, e.Off+e.Len) }

// applyPart does what the entry says about [from, to).
func (e *Entry) applyPart(m *image, from, to int64) {
	if e.Kind == Grow {
		m.size = max(m.size, e.Len)
		return
	}
	if to = min(to, m.size); from >= to {
		return
	}
	if e.Kind == Discard {
		m.zero(from, to-from)
		return
	}
	m.write(from, e.Data[from-e.Off:to-e.Off])
}

// settle decides what a power failure leaves of the pending entries: most, few,
// all or none of them, each whole or torn.
func settle(m *image, pending []int, entries []Entry, rng *rand.Rand) {
	chance := [...]float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	for _, i := range pending {
		e := &entries[i]
		switch {
		case rng.Float64() >= chance:
		case e.Kind == Grow || chance == 1 || rng.IntN(4) > 0:
			e.apply(m)
		default:
			tear(m, e, rng)
		}
	}
}

// tear applies a part of an entry: its beginning, its end, or any of its units,
// which devices and page caches write as a whole.
func tear(m *image, e *Entry, rng *rand.Rand) {
	unit := [...]int64{512, 4096}[rng.IntN(2)]
	first, last := e.Off/unit, (e.Off+e.Len+unit-1)/unit
	if first == last {
		return
	}
	cut, style := first+rng.Int64N(last-first+1), rng.IntN(3)
	for u := first; u < last; u++ {
		if style == 0 && u >= cut || style == 1 && u < cut || style == 2 && rng.IntN(2) == 0 {
			continue
		}
		e.applyPart(m, max(e.Off, u*unit), min(e.Off+e.Len, (u+1)*unit))
	}
}

func (n *noted) before(at int) []any {
	k := sort.SearchInts(n.at, at)
	return n.values[:k:k]
}
