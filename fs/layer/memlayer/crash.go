package memlayer

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// A step is one change, as Crash repeats it: a function of the state alone.
type step struct {
	call  Call
	quiet bool // time that passed; no step that is counted
	do    func(*state)
}

// Record begins to remember all changes, for Crash. What is there already is
// taken to be on disk.
func (fs *FS) Record() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.base = fs.st.clone()
	for _, i := range fs.base.inodes {
		i.data.settle()
	}
	for _, i := range fs.st.inodes {
		i.data.settle()
	}
	fs.log = nil
}

// Steps returns the calls that changed something since Record, or synced it.
// The state after the n-th of them, counted from 1, is what Crash(n) gives.
func (fs *FS) Steps() []Call {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var out []Call
	for _, s := range fs.log {
		if !s.quiet {
			out = append(out, s.call)
		}
	}
	return out
}

// A Policy says what a crash leaves of data that was not written out.
type Policy struct {
	kind policy
	seed uint64
}

type policy int

const (
	kill policy = iota
	lost
	short
	zeroed
	torn
)

var (
	// Kill loses nothing: the server was killed, not the machine.
	Kill = Policy{kind: kill}
	// Lost loses all of it: new files are empty, old ones have their old bytes.
	Lost = Policy{kind: lost}
	// Short keeps the first half of the blocks.
	Short = Policy{kind: short}
	// Zeroed keeps sizes and loses the blocks: new files are full of zeros.
	Zeroed = Policy{kind: zeroed}
)

// Torn chooses for each block and each size by a random number.
func Torn(seed uint64) Policy { return Policy{kind: torn, seed: seed} }

// Policies returns one of each, for tests that try them all.
func Policies() []Policy { return []Policy{Kill, Lost, Short, Zeroed, Torn(1), Torn(2)} }

func (p Policy) String() string {
	name := [...]string{"kill", "lost", "short", "zeroed", "torn"}[p.kind]
	if p.kind == torn {
		return fmt.Sprintf("%s(%d)", name, p.seed)
	}
	return name
}

// Crash returns the filesystem that is found when the machine stops right
// after the n-th step since Record; 0 is what Record found. The filesystem
// itself goes on unharmed. Crash panics without Record, and if there are fewer
// steps.
func (fs *FS) Crash(n int, loss Policy) *FS {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.base == nil {
		panic("memlayer: Crash before Record: there is no log to replay")
	}
	st := fs.base.clone()
	done := 0
	for _, s := range fs.log {
		if done == n {
			break
		}
		s.do(st)
		if !s.quiet {
			done++
		}
	}
	if done < n {
		panic(fmt.Sprintf("memlayer: Crash after step %d of %d", n, done))
	}
	st.lose(loss)
	return newFS(fs.opts, st)
}

// lose makes the state one that a mount finds: no files without a name, and
// of the data what the policy leaves.
func (s *state) lose(loss Policy) {
	var inos []uint64
	for n := range s.inodes {
		inos = append(inos, n)
	}
	slices.Sort(inos) // for the random numbers
	r := rand.New(rand.NewPCG(loss.seed, 0))
	for _, n := range inos {
		i := s.inodes[n]
		s.reap(n)
		if i.isRegular() {
			i.data.lose(loss.kind, r)
		}
	}
}

func (d *data) lose(kind policy, r *rand.Rand) {
	dirty := make([]int64, 0, len(d.clean))
	for n := range d.clean {
		dirty = append(dirty, n)
	}
	slices.Sort(dirty)
	size := d.size
	grow := d.size - d.diskSize
	var keep func(k int) bool // whether the k-th dirty block got out
	switch kind {
	case kill:
		keep = func(int) bool { return true }
	case lost:
		size = d.diskSize
		keep = func(int) bool { return false }
	case short:
		half := len(dirty) / 2
		size = d.diskSize
		if half > 0 {
			size = max(size, min(d.size, (dirty[half-1]+1)*blockSize))
		}
		keep = func(k int) bool { return k < half }
	case zeroed:
		keep = func(int) bool { return false }
	case torn:
		switch r.IntN(3) {
		case 0:
			size = d.diskSize
		case 1:
			size = d.diskSize + r.Int64N(grow/blockSize+1)*blockSize
		}
		keep = func(int) bool { return r.IntN(2) == 0 }
	}
	for k, n := range dirty {
		if old := d.clean[n]; !keep(k) {
			if old == nil && n*blockSize < size && kind != kill {
				old = unwritten
			}
			d.place(n, old)
		}
	}
	if size < d.size {
		d.truncate(size)
	}
	d.settle()
}
