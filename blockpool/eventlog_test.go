package blockpool

import (
	"fmt"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

func TestEventsSurviveAndAKillLosesTheNewestOnly(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	for i := range 1300 {
		b.events.add(Event{Kind: EventConfig, Object: "x", Text: fmt.Sprint(i)})
		if i%170 == 0 {
			b.must(b.Sync(ctx))
		}
	}
	b.must(b.Sync(ctx))
	b.events.add(Event{Kind: EventConfig, Text: "too late"})
	b.crash()
	list := b.Events(0)
	if len(list) < 900 || len(list) > keptEvents {
		t.Fatalf("%d events", len(list))
	}
	last := 0
	for i, e := range list {
		if i > 0 && e.Number != list[i-1].Number+1 {
			t.Fatalf("event %d follows %d", e.Number, list[i-1].Number)
		}
		if e.Kind == EventConfig {
			fmt.Sscan(e.Text, &last)
			if e.Object != "x" || time.Since(e.Time) > time.Hour {
				t.Fatalf("%+v", e)
			}
		}
	}
	if last != 1299 {
		t.Errorf("the last is %d", last)
	}
	b.events.add(Event{Kind: EventConfig, Text: "in time"})
	b.reopen()
	list = b.Events(0)
	found := false
	for _, e := range list {
		found = found || e.Text == "in time"
	}
	if !found {
		t.Error("an event is lost, though the pool was closed")
	}
	n := 0
	view, err := b.meta.View()
	b.must(err)
	defer view.Close()
	b.must(view.Scan(meta.Events, nil, func(_, _ []byte) error { n++; return nil }))
	if n > keptEvents {
		t.Errorf("%d events are kept", n)
	}
}

func FuzzUnpackEvent(f *testing.F) {
	f.Add((&Event{Time: time.Unix(1, 2), Kind: EventDevice, Object: "o", Text: "t"}).pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := unpackEvent(7, b)
		if err != nil {
			return
		}
		if again, err := unpackEvent(7, e.pack()); len(e.Text) < maxEventText && len(e.Object) < maxEventText && (err != nil || again != e) {
			t.Fatalf("%+v, then %+v, %v", e, again, err)
		}
	})
}
