package memdev

import (
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/vdev"
)

// A Kind says what an [Entry] of a journal is.
type Kind uint8

// The kinds of entries.
const (
	Create  Kind = iota // the device came to be, Len bytes long
	Write               // Data was written at Off
	Discard             // Len bytes at Off were discarded
	Grow                // the device became Len bytes long
	Sync                // all earlier writes, discards and Grows of the device are durable
	Lie                 // a Sync was acknowledged and made nothing durable
	Damage              // Data appeared at Off without having been written
	Pulled              // the device was pulled, and what was lost with it is lost
	Mark                // a note of the test, in Value
	Foreign             // a step of another store, in Value
)

var kindNames = [...]string{"create", "write", "discard", "grow", "sync", "lie", "damage", "pulled", "mark", "foreign"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// An Entry is one thing that happened.
type Entry struct {
	Kind  Kind
	Path  string // of the device, "" for Mark and Foreign
	Off   int64  // in bytes
	Len   int64  // in bytes
	Data  []byte // what was written; not to be changed
	Value any    // of a Mark or Foreign entry

	device int    // index in the journal
	image  *image // of Pulled: what the device holds from now on
}

func (e Entry) String() string {
	switch e.Kind {
	case Mark, Foreign:
		return fmt.Sprintf("%v %v", e.Kind, e.Value)
	case Write, Discard, Damage:
		return fmt.Sprintf("%v %s [%d, %d)", e.Kind, e.Path, e.Off, e.Off+e.Len)
	case Create, Grow:
		return fmt.Sprintf("%v %s %d", e.Kind, e.Path, e.Len)
	default:
		return fmt.Sprintf("%v %s", e.Kind, e.Path)
	}
}

// A Journal is a host with devices in memory, and the order in which they, and
// other stores, were told things.
type Journal struct {
	faults faults

	// mu makes the global order. It guards all below and the content and
	// state of every device.
	mu          sync.RWMutex
	recording   bool
	devices     []*Device
	entries     []Entry
	marks       noted
	foreign     noted
	checkpoints []checkpoint // by position, the first at 0
	unsaved     int64        // bytes written since the last checkpoint
}

// noted holds the values of the entries of one kind, and their positions.
type noted struct {
	at     []int
	values []any
}

// NewJournal returns a host without devices that records.
func NewJournal() *Journal {
	return &Journal{recording: true, checkpoints: []checkpoint{{}}}
}

// NewUnrecorded returns a host that keeps no entries, so that its memory is
// bounded by the content of its devices: for long runs with faults and without
// crashes.
func NewUnrecorded() *Journal {
	return &Journal{checkpoints: []checkpoint{{}}}
}

// New returns a device of size bytes that is open, alone on an unrecorded host.
func New(path string, size int64) *Device {
	d, err := NewUnrecorded().Create(path, size)
	if err != nil {
		panic(err) // an empty host refuses a negative size only
	}
	return d.(*Device)
}

// Create makes a device of zeros and opens it, as [vdev.Create] does. It is a
// *[Device].
func (j *Journal) Create(path string, size int64) (vdev.Device, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if size < 0 {
		return nil, fmt.Errorf("create device %s: size %d is negative", path, size)
	}
	if j.findLocked(path) != nil {
		return nil, fmt.Errorf("create device %s: %w", path, fs.ErrExist)
	}
	d := &Device{journal: j, path: path, index: len(j.devices), open: true}
	d.live = &image{size: size}
	d.durable = d.live.fork()
	j.devices = append(j.devices, d)
	j.addLocked(Entry{Kind: Create, Path: path, Len: size, device: d.index})
	return d, nil
}

// Open opens a device that is closed, as [vdev.Open] does. It is a *[Device].
// One that is open already is refused as [vdev.ErrInUse], one that is pulled
// fails with ENXIO.
func (j *Journal) Open(path string) (vdev.Device, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	d := j.findLocked(path)
	switch {
	case d == nil:
		return nil, fmt.Errorf("open device %s: %w", path, fs.ErrNotExist)
	case d.pulled:
		return nil, fmt.Errorf("open device %s: %w", path, unix.ENXIO)
	case d.open:
		return nil, fmt.Errorf("open device %s: %w: it was not closed", path, vdev.ErrInUse)
	}
	d.open, d.failed = true, nil
	return d, nil
}

// Device returns the device at path, open or not, nil if there is none.
func (j *Journal) Device(path string) *Device {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.findLocked(path)
}

// Devices returns all devices in the order in which they were made.
func (j *Journal) Devices() []*Device {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return append([]*Device(nil), j.devices...)
}

func (j *Journal) findLocked(path string) *Device {
	for _, d := range j.devices {
		if d.path == path {
			return d
		}
	}
	return nil
}

// Mark notes a value at this place of the order, for example that an operation
// was acknowledged to its user.
func (j *Journal) Mark(value any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addLocked(Entry{Kind: Mark, Value: value})
}

// Add enters a step of a store that is not made of this host's devices: what it
// stands for has happened, durably and as a whole, in every state after it, and
// in none before.
func (j *Journal) Add(value any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addLocked(Entry{Kind: Foreign, Value: value})
}

// Len returns the number of entries, which is the last position of a [State].
func (j *Journal) Len() int {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return len(j.entries)
}

// Entries returns all entries so far. They are not to be changed.
func (j *Journal) Entries() []Entry {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.entries[:len(j.entries):len(j.entries)]
}

func (j *Journal) addLocked(e Entry) {
	if !j.recording {
		return
	}
	at := len(j.entries)
	j.entries = append(j.entries, e)
	switch e.Kind {
	case Mark:
		j.marks.add(at, e.Value)
	case Foreign:
		j.foreign.add(at, e.Value)
	}
	j.unsaved += int64(len(e.Data))
	if last := j.checkpoints[len(j.checkpoints)-1]; at+1-last.at >= checkpointEntries || j.unsaved >= checkpointBytes {
		j.saveLocked()
	}
}

func (n *noted) add(at int, value any) {
	n.at, n.values = append(n.at, at), append(n.values, value)
}
