package blockpool

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestStatusTellsWhatIsWrongAndWhatToDo(t *testing.T) {
	b, _ := newLoaded(t, Config{DataProfile: Mirror}, 2, 64<<20)
	st := b.Status()
	if st.State != StateOnline || st.Volumes != 1 || st.Snapshots != 1 || st.Data.Used < 6<<20 || st.Data.Size != st.Data.Used+st.Data.Free ||
		st.Metadata.Used == 0 || len(st.Log.Devices) != 2 || st.Raw != 128<<20 || st.Scrub.State != ScrubNone || st.Move.Kind != MoveNone {
		t.Fatalf("%+v", st)
	}
	text, err := json.Marshal(st)
	b.must(err)
	for _, want := range []string{`"state":"online"`, `"data_profile":"mirror"`, `"low_water":10`, `"scrub":{"state":"none"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	b.journal.Device(b.disk(1)).Pull(0)
	v := b.volume("vol")
	defer v.Close()
	if _, err := v.WriteAt(fill(64<<10, 1), 0); err != nil {
		t.Fatal(err)
	}
	b.must(b.Sync(ctx))
	if st := b.Status(); st.State != StateDegraded || !strings.Contains(st.Problem, "disk1") || st.Action == "" {
		t.Fatalf("%+v", st)
	}
	b.journal.Device(b.disk(1)).Return()
	b.must(b.ClearDevice(ctx, b.disk(1)))
	if st := b.Status(); st.State != StateOnline || st.Move.Kind != MoveResilver {
		t.Fatalf("%+v", st)
	}
	b.Abandon()
	if st := b.Status(); st.State != StateClosed {
		t.Fatalf("%+v", st)
	}
}
