package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// whole returns a replication stream of some entries, and what they bring.
func whole(t testing.TB, n int) (stream []byte, entries []Entry, contents []string) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Header{Top: "home"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		e := Entry{Dataset: fmt.Sprintf("d%d", i), Snapshot: "now", GUID: strings.Repeat("0a", 16), Properties: map[string]string{"com.example:n\n": "\xe4 \x00"}}
		e.Properties = map[string]string{"atime": "off"}
		content := make([]byte, rng.IntN(700<<10)/(1+i*i*40))
		for j := range content {
			content[j] = byte(rng.Uint32())
		}
		if err := w.Stream(e, iotestReader{bytes.NewReader(content)}); err != nil {
			t.Fatal(err)
		}
		entries, contents = append(entries, e), append(contents, string(content))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), entries, contents
}

// iotestReader gives little at a time.
type iotestReader struct{ r io.Reader }

func (r iotestReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), 9999)]) }

// readAll reads a replication stream.
func readAll(stream []byte) (h Header, entries []Entry, contents []string, err error) {
	r, err := NewReader(bytes.NewReader(stream))
	if err != nil {
		return h, nil, nil, err
	}
	for {
		e, err := r.Next()
		if err == io.EOF {
			return r.Header, entries, contents, nil
		}
		if err != nil {
			return h, entries, contents, err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return h, entries, contents, err
		}
		entries, contents = append(entries, e), append(contents, string(text))
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, n := range []int{0, 1, 5} {
		stream, entries, contents := whole(t, n)
		h, gotEntries, gotContents, err := readAll(stream)
		if err != nil || h.Top != "home" || !reflect.DeepEqual(gotEntries, entries) || !reflect.DeepEqual(gotContents, contents) {
			t.Errorf("%d streams: %v, %+v, %+v, %d contents", n, err, h, gotEntries, len(gotContents))
		}
	}
}

func TestEntriesCanBeLeftOut(t *testing.T) {
	stream, entries, contents := whole(t, 4)
	r, err := NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		e, err := r.Next()
		if err != nil || e.Dataset != entries[i].Dataset {
			t.Fatalf("entry %d: %+v, %v", i, e, err)
		}
		if i == 2 { // after a part of the one before, and none of the first
			text, err := io.ReadAll(r)
			if err != nil || string(text) != contents[i] {
				t.Errorf("stream %d: %d bytes, %v", i, len(text), err)
			}
		} else if i == 1 {
			io.ReadFull(r, make([]byte, 10))
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("behind the last: %v", err)
	}
}

// A stream that was cut off anywhere is not taken for a whole one.
func TestACutIsFound(t *testing.T) {
	stream, _, _ := whole(t, 3)
	for cut := 0; cut < len(stream); cut += 1 + cut/97 {
		if _, _, _, err := readAll(stream[:cut]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut off at %d of %d: %v", cut, len(stream), err)
		}
	}
	var broken bytes.Buffer
	w, err := NewWriter(&broken, Header{})
	if err == nil {
		err = w.Stream(Entry{Snapshot: "s"}, io.MultiReader(strings.NewReader("half"), failing{}))
	}
	if !errors.Is(err, errFailing) {
		t.Fatal(err)
	}
	if _, _, _, err := readAll(broken.Bytes()); !errors.Is(err, ErrDamaged) {
		t.Errorf("the stream of a sender that failed: %v", err)
	}
}

type failing struct{}

var errFailing = errors.New("no more")

func (failing) Read([]byte) (int, error) { return 0, errFailing }

func FuzzReader(f *testing.F) {
	stream, _, _ := whole(f, 2)
	f.Add(stream[:200])
	f.Add(stream)
	f.Fuzz(func(t *testing.T, stream []byte) {
		_, entries, contents, err := readAll(stream)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
		total := 0
		for _, c := range contents {
			total += len(c)
		}
		if total > len(stream) || len(entries) > len(stream) {
			t.Errorf("%d entries of %d bytes out of %d", len(entries), total, len(stream))
		}
	})
}

// sources is a tree with a clone that comes before what it is a clone of.
func sources() []Source {
	return []Source{
		{Name: "home/a-clone", Origin: "home/work@2", Snapshots: []Snapshot{{"3", "g7", 30}}},
		{Name: "home", Snapshots: []Snapshot{{"3", "g3", 30}, {"1", "g1", 10}, {"2", "g2", 20}}, Properties: map[string]string{"atime": "off"}},
		{Name: "home/work", Snapshots: []Snapshot{{"2", "g5", 20}, {"3", "g6", 30}}},
		{Name: "homework", Snapshots: []Snapshot{{"3", "g9", 30}}},
	}
}

func TestPlans(t *testing.T) {
	lacking := append(sources(), Source{Name: "home/work/new"}, Source{Name: "home/work/new/below", Snapshots: []Snapshot{{"3", "g8", 30}}})
	for _, c := range []struct {
		name    string
		sources []Source
		w       Wanted
		want    string
	}{
		{"all of a tree", sources(), Wanted{Top: "home", Snapshot: "3", All: true, Recursive: true},
			"home@1 home@1>home@2 home@2>home@3 home/work@2 home/work@2>home/work@3 home/work@2>home/a-clone@3(of work@2)"},
		{"what has changed", sources(), Wanted{Top: "home", Snapshot: "3", From: "2", Recursive: true},
			"home@2>home@3 home/work@2>home/work@3 home/work@2>home/a-clone@3(of work@2)"},
		{"with all in between", sources(), Wanted{Top: "home", Snapshot: "3", From: "1", All: true, Recursive: true},
			"home@1>home@2 home@2>home@3 home/work@2 home/work@2>home/work@3 home/work@2>home/a-clone@3(of work@2)"},
		{"one dataset", sources(), Wanted{Top: "home", Snapshot: "3", From: "1", All: true}, "home@1>home@2 home@2>home@3"},
		{"one snapshot with properties", sources(), Wanted{Top: "home", Snapshot: "2", Properties: true}, "home@2+atime"},
		{"the clone alone", sources(), Wanted{Top: "home/a-clone", Snapshot: "3", Recursive: true, All: true}, "home/a-clone@3"},
		{"what lacks the snapshot", lacking, Wanted{Top: "home", Snapshot: "3", From: "2", Recursive: true}, "!home/work/new has no snapshot 3"},
		{"without what lacks it", lacking, Wanted{Top: "home", Snapshot: "3", From: "2", Recursive: true, SkipMissing: true},
			"home@2>home@3 home/work@2>home/work@3 home/work@2>home/a-clone@3(of work@2)"},
		{"from what is not there", sources(), Wanted{Top: "home", Snapshot: "3", From: "0"}, "!home has no snapshot 0"},
		{"backwards", sources(), Wanted{Top: "home", Snapshot: "1", From: "3"}, "!snapshot 3 is not older than 1"},
		{"nothing of that name", sources(), Wanted{Top: "house", Snapshot: "1"}, "!nothing to send"},
	} {
		steps, err := NewPlan(c.sources, c.w)
		var got []string
		for _, s := range steps {
			text := s.To
			if s.From != "" {
				text = s.From + ">" + s.To
			}
			if s.Origin != "" {
				text += "(of " + s.Origin + ")"
			}
			for name := range s.Properties {
				text += "+" + name
			}
			got = append(got, text)
			if _, snap, _ := strings.Cut(s.To, "@"); snap != s.Snapshot || strings.TrimSuffix(c.w.Top+"/"+s.Dataset, "/")+"@"+snap != s.To {
				t.Errorf("%s: entry %+v is of %s", c.name, s.Entry, s.To)
			}
		}
		if want, fails := strings.CutPrefix(c.want, "!"); fails {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", c.name, err, want)
			}
		} else if text := strings.Join(got, " "); err != nil || text != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, text, c.want)
		}
	}
}
