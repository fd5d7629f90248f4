package blockpool

import (
	"fmt"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// The last events are in the metadata, by number. Each txg takes those that came
// before it, so a crash may lose the newest, and never one before one that is
// kept.

const eventVersion = 1

// Tags of an event's fields on disk.
const (
	eventTime = iota + 1
	eventKind
	eventObject
	eventText
)

// maxEventText bounds what is kept of a text, in bytes.
const maxEventText = 4 << 10

func (e *Event) pack() []byte {
	f := format.NewFields(eventVersion)
	f.Uint(eventTime, uint64(e.Time.UnixNano()))
	f.String(eventKind, string(e.Kind))
	f.String(eventObject, e.Object[:min(len(e.Object), maxEventText)])
	f.String(eventText, e.Text[:min(len(e.Text), maxEventText)])
	return f
}

// unpackEvent is the inverse of pack.
func unpackEvent(number uint64, b []byte) (Event, error) {
	e := Event{Number: number}
	err := format.ParseFields(b, eventVersion, func(f format.Field) error {
		switch f.Tag {
		case eventTime:
			var n int64
			err := f.Int(&n)
			e.Time = time.Unix(0, n)
			return err
		case eventKind:
			e.Kind = EventKind(f.String())
		case eventObject:
			e.Object = f.String()
		case eventText:
			e.Text = f.String()
		default:
			return f.Unknown()
		}
		return nil
	})
	if err != nil {
		return Event{}, fmt.Errorf("event %d: %w", number, err)
	}
	return e, nil
}

// unsaved reports whether there are events that no txg has taken.
func (l *events) unsaved() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.saved < l.next
}

// gather puts new events into the batch of a pass, and takes old ones out.
func (l *events) gather(s *pass) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Number > l.saved {
			s.batch.Put(meta.Events, key64(e.Number), e.pack())
		}
	}
	for n := max(l.saved, keptEvents); n < l.next && n-keptEvents < l.saved; n++ {
		s.batch.Delete(meta.Events, key64(n-keptEvents+1))
	}
	l.saved = l.next
}

// load reads the events of the past. Those that have come since the pool began to
// be opened follow them.
func (l *events) load(view *meta.View) error {
	var past []Event
	err := view.Scan(meta.Events, nil, func(key, value []byte) error {
		number, err := parseKey64(key)
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		e, err := unpackEvent(number, value)
		past = append(past, e)
		return err
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(past) > 0 {
		l.saved = past[len(past)-1].Number
	}
	for i := range l.list {
		l.list[i].Number += l.saved
	}
	l.list = append(past, l.list...)
	l.next += l.saved
	return nil
}
