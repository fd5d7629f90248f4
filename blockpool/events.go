package blockpool

import (
	"fmt"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// An Event is something that the owner of a pool wants to know.
type Event struct {
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Kind   EventKind `json:"kind"`
	Object string    `json:"object,omitempty"` // the device, volume or replica that it is about
	Text   string    `json:"text"`
}

// An EventKind says what an event is about. Its value is what a hook command
// gets to see.
type EventKind string

// The kinds of events.
const (
	EventLowWater  EventKind = "low-water" // less space is free than the low-water mark
	EventFull      EventKind = "full"      // a write found no space
	EventDevice    EventKind = "device"    // a device failed, came, went or returned
	EventReplica   EventKind = "replica"   // the same of a metadata replica
	EventHealed    EventKind = "healed"    // wrong bytes were found and mended
	EventDamaged   EventKind = "damaged"   // wrong bytes were found and no copy helps
	EventScrub     EventKind = "scrub"     // a scrub or resilver began or ended
	EventFailed    EventKind = "failed"    // the pool is read-only and needs a check
	EventRecovered EventKind = "recovered" // the intent log had changes that were not in a txg yet
	EventConfig    EventKind = "config"    // something was changed by hand
)

// keptEvents is how many events a pool keeps.
const keptEvents = 1000

// events keeps the last events and tells those who listen.
type events struct {
	mu        sync.Mutex
	list      []Event
	next      uint64
	listeners map[int]func(Event)
	nextID    int
	low, dry  bool   // whether the marks are crossed
	saved     uint64 // the last that a txg has taken
}

// add numbers an event and tells it.
func (l *events) add(e Event) {
	l.mu.Lock()
	l.next++
	e.Number, e.Time = l.next, time.Now()
	l.list = append(l.list, e)
	if len(l.list) > keptEvents {
		l.list = append(l.list[:0:0], l.list[len(l.list)-keptEvents:]...)
	}
	tell := make([]func(Event), 0, len(l.listeners))
	for _, f := range l.listeners {
		tell = append(tell, f)
	}
	l.mu.Unlock()
	for _, f := range tell {
		f(e)
	}
}

// Events returns the events after that number, the oldest first, of the last
// thousand.
func (p *Pool) Events(after uint64) []Event {
	p.events.mu.Lock()
	defer p.events.mu.Unlock()
	for i, e := range p.events.list {
		if e.Number > after {
			return append([]Event{}, p.events.list[i:]...)
		}
	}
	return nil
}

// Listen has f called with each event from now on, until stop is called. f must
// return soon, and may be called from several goroutines.
func (p *Pool) Listen(f func(Event)) (stop func()) {
	l := &p.events
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners == nil {
		l.listeners = map[int]func(Event){}
	}
	l.nextID++
	id := l.nextID
	l.listeners[id] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.listeners, id)
	}
}

// full tells once that a write found no space, until there is some again.
func (l *events) full() {
	l.mu.Lock()
	told := l.dry
	l.dry = true
	l.mu.Unlock()
	if !told {
		l.add(Event{Kind: EventFull, Text: "a write found no space"})
	}
}

// watermarks tells once when a mark is crossed.
func (l *events) watermarks(p *Pool) {
	free, total := p.space.available(format.Data), p.space.total(format.Data)
	mark := int64(p.Config().LowWater)
	low := free*100 < total*mark
	l.mu.Lock()
	crossed := low && !l.low
	l.low = low
	if free*100 > total*kept {
		l.dry = false
	}
	l.mu.Unlock()
	if crossed {
		l.add(Event{Kind: EventLowWater, Text: fmt.Sprintf("%d%% of the pool is free, the low-water mark is %d%%", free*100/max(total, 1), mark)})
	}
}
