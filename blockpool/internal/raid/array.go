package raid

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/mutant"
	"github.com/laminafs/lamina/blockpool/vdev"
)

// A State says what an array does with a device.
type State uint8

// The states of devices.
const (
	Missing State = iota // not there
	Online               // read and written
	Faulted              // missed a write or a sync: read as the last resort only
)

var stateNames = [...]string{Missing: "missing", Online: "online", Faulted: "faulted"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// errNotOnline stands for a column whose device is missing or faulted, which
// is known and no news. To who wanted something of it, it is an I/O error.
var errNotOnline = fmt.Errorf("device is not online: %w", unix.EIO)

// Hooks are told what happens to devices. Each may be nil. They are called from
// many goroutines and may call the array.
type Hooks struct {
	// Fault is called for every operation ("read", "write", "sync", "verify",
	// "mend", "discard") that failed on a device, whether the array got over it or not.
	// [Array.State] tells what became of the device. "verify" stands for bytes
	// that were read and were not the right ones.
	Fault func(id DeviceID, op string, err error)
	// Heal is called when n bytes at off of a device were bad and have been
	// written anew.
	Heal func(id DeviceID, off, n int64)
}

// An Array is the set of devices of a pool.
type Array struct {
	hooks    Hooks
	encoders encoders
	dirty    dirty

	syncing chan struct{} // holds one token while a sync runs
	copying sync.RWMutex

	mu      sync.RWMutex
	members map[DeviceID]*member
	epoch   uint64 // counts changes of members
}

// A member is a device that is or was in the array. One that leaves and comes
// back is another member.
type member struct {
	id    DeviceID
	dev   vdev.Device
	since uint64 // epoch in which it came
	state State  // guarded by Array.mu

	reads, writes, sums atomic.Uint64 // errors
}

// New returns an array without devices.
func New(hooks Hooks) *Array {
	return &Array{hooks: hooks, syncing: make(chan struct{}, 1), members: map[DeviceID]*member{}}
}

// Add puts a device in, online: a new one, one that was missing, or a faulted
// one that is to be tried again. What the array had under that id it does not
// use any more, and does not close.
//
// The device may lack what was written while it was away. Reads notice and mend
// that record by record; only a Scrub or Rebuild of all that was written since
// makes up for it.
func (a *Array) Add(id DeviceID, dev vdev.Device) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.epoch++
	a.members[id] = &member{id: id, dev: dev, since: a.epoch, state: Online}
}

// Remove takes a device out and returns it, nil if it was missing. It is not
// closed, and operations that are under way may still end on it. What was
// written to it since the last [Array.SyncTouched] counts as lost from it, so
// that where redundancy does not make up for that, every later sync fails.
func (a *Array) Remove(id DeviceID) vdev.Device {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.members[id]
	if m == nil {
		return nil
	}
	a.epoch++
	delete(a.members, id)
	return m.dev
}

// Fault makes an online device faulted.
func (a *Array) Fault(id DeviceID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := a.members[id]; m != nil {
		a.faultLocked(m)
	}
}

// faultLocked makes a member faulted, unless it has left or been replaced.
func (a *Array) faultLocked(m *member) {
	if a.members[m.id] == m && m.state == Online {
		m.state = Faulted
		a.epoch++
	}
}

// State returns the state of a device.
func (a *Array) State(id DeviceID) State {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if m := a.members[id]; m != nil {
		return m.state
	}
	return Missing
}

// Device returns a device that is online or faulted, else nil.
func (a *Array) Device(id DeviceID) vdev.Device {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if m := a.members[id]; m != nil {
		return m.dev
	}
	return nil
}

// A Status is what is known of a device since it was added.
type Status struct {
	ID                                      DeviceID
	Path                                    string
	State                                   State
	ReadErrors, WriteErrors, ChecksumErrors uint64 // operations that failed; a sync is a write
}

// Status returns all devices that are not missing, by id.
func (a *Array) Status() []Status {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]Status, 0, len(a.members))
	for _, m := range a.members {
		all = append(all, Status{m.id, m.dev.Path(), m.state, m.reads.Load(), m.writes.Load(), m.sums.Load()})
	}
	slices.SortFunc(all, func(x, y Status) int { return cmp.Compare(x.ID, y.ID) })
	return all
}

// find returns the member that a place is on, nil if it is missing, and its
// state.
func (a *Array) find(id DeviceID) (*member, State) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if m := a.members[id]; m != nil {
		return m, m.state
	}
	return nil, Missing
}

// report counts a failure and tells of it.
func (a *Array) report(m *member, op string, err error) {
	switch op {
	case "read":
		m.reads.Add(1)
	case "verify":
		m.sums.Add(1)
	default:
		m.writes.Add(1)
	}
	if a.hooks.Fault != nil {
		a.hooks.Fault(m.id, op, err)
	}
}

// mend writes the right bytes over bad ones of a device that is online, and
// tells whether they are there now. A failure is reported and not more: the
// record is as readable as it was.
func (a *Array) mend(m *member, off int64, p []byte) bool {
	if _, state := a.find(m.id); state != Online || mutant.Breaks(mutant.Mend) {
		return false
	}
	if _, err := m.dev.WriteAt(p, off); err != nil {
		a.report(m, "mend", err)
		return false
	}
	a.dirty.touch(m.id)
	if a.hooks.Heal != nil {
		a.hooks.Heal(m.id, off, int64(len(p)))
	}
	return true
}
