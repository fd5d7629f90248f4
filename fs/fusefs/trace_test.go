package fusefs

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func request(code uint32, node uint64, body string) []byte {
	r := make([]byte, inHeaderSize, inHeaderSize+len(body))
	binary.NativeEndian.PutUint32(r[4:], code)
	binary.NativeEndian.PutUint64(r[16:], node)
	binary.NativeEndian.PutUint32(r[24:], 1000)
	binary.NativeEndian.PutUint32(r[32:], 77)
	return append(r, body...)
}

func places(node uint64) (string, string) {
	switch node {
	case 1:
		return "/", "up"
	case 5:
		return "/d", "low"
	}
	return "", ""
}

func TestATraceTellsWhatWasAskedAndWhoServedIt(t *testing.T) {
	tr := newTracer(places)
	entry := make([]byte, outHeaderSize+8)
	binary.NativeEndian.PutUint64(entry[outHeaderSize:], 5)
	failed := make([]byte, outHeaderSize)
	errno := int32(unix.ENOENT)
	binary.NativeEndian.PutUint32(failed[4:], uint32(-errno))
	tr.record(TraceEvent{}, request(1, 1, "d\x00"), entry)
	tr.record(TraceEvent{}, request(10, 5, "\xff\x1b\x00"), failed)
	read := make([]byte, 20)
	binary.NativeEndian.PutUint64(read[8:], 4096)
	binary.NativeEndian.PutUint32(read[16:], 512)
	tr.record(TraceEvent{}, request(15, 5, string(read)), entry)
	// What is cut short must not be read beyond its end.
	tr.record(TraceEvent{}, request(35, 5, "short"), nil)
	tr.record(TraceEvent{}, request(999, 9, ""), nil)
	got := tr.events(0, 0)
	want := []TraceEvent{
		{Seq: 1, Op: "LOOKUP", Path: []byte("/d"), Layer: []byte("low")},
		{Seq: 2, Op: "UNLINK", Path: []byte("/d/\xff\x1b"), Errno: unix.ENOENT},
		{Seq: 3, Op: "READ", Path: []byte("/d"), Layer: []byte("low"), Offset: 4096, Size: 512},
		{Seq: 4, Op: "CREATE", Path: []byte("/d"), Layer: []byte("low")},
		{Seq: 5, Op: "OP999"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d events", len(got))
	}
	for i, w := range want {
		g := got[i]
		if g.Seq != w.Seq || g.Op != w.Op || string(g.Path) != string(w.Path) || string(g.Layer) != string(w.Layer) || g.Errno != w.Errno ||
			g.Offset != w.Offset || g.Size != w.Size || g.PID != 77 || g.UID != 1000 {
			t.Errorf("event %d is %+v, want %+v", i+1, g, w)
		}
	}
}

func TestATraceThatIsTooSlowKnowsWhatItMissed(t *testing.T) {
	tr := newTracer(places)
	for range traceRing + 10 {
		tr.record(TraceEvent{}, request(3, 1, ""), nil)
	}
	got := tr.events(2, 0)
	if len(got) != traceMaxAsk || got[0].Seq != 11 {
		t.Errorf("%d events from %d", len(got), got[0].Seq)
	}
	if got := tr.events(traceRing+10, time.Millisecond); len(got) != 0 {
		t.Errorf("%d events of the future", len(got))
	}
}

func TestATraceThatNobodyAsksForEnds(t *testing.T) {
	tr := newTracer(places)
	tr.asked = time.Now().Add(-2 * traceIdle)
	if !tr.record(TraceEvent{}, request(3, 1, ""), nil) {
		t.Error("it goes on")
	}
}

func TestMetricsAreWhatPrometheusReads(t *testing.T) {
	text := Metrics(Info{Target: "/m\n\"x\\"}, Counters{Requests: map[string]uint64{"LOOKUP": 3}, BytesRead: 7})
	for _, want := range []string{`lamina_requests_total{mount="/m\n\"x\\",op="lookup"} 3`, `lamina_read_bytes_total{mount="/m\n\"x\\"} 7`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is missing from\n%s", want, text)
		}
	}
	seen := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), " ")
		if strings.HasPrefix(line, "# TYPE ") {
			if seen[name] {
				t.Errorf("%s is declared twice", name)
			}
			seen[name] = true
		} else if name, _, _ := strings.Cut(name, "{"); !strings.HasPrefix(line, "#") && !seen[name] {
			t.Errorf("%s has no type", name)
		}
	}
}
