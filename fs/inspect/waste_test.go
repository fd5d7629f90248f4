package inspect_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
)

// bytesIn is an independent count of what one layer holds.
func bytesIn(t *testing.T, d layer.Dir) (bytes int64) {
	list, err := d.ReadDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		st, err := d.StatAt(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case st.IsDir():
			sub, err := d.OpenDir(e.Name)
			if err != nil {
				t.Fatal(err)
			}
			bytes += bytesIn(t, sub)
			sub.Close()
		case st.IsRegular() && !strings.HasPrefix(e.Name, ".wh."):
			if _, err := d.GetxattrAt(e.Name, "trusted.overlay.metacopy", nil); err != nil {
				bytes += st.Size
			}
		}
	}
	return bytes
}

// What users would lose: a CI rule that fails, or passes, by a wrong number.
func TestWasteAgreesWithOtherCounts(t *testing.T) {
	noRedirects = true
	defer func() { noRedirects = false }()
	done := 0
	for seed := range seeds(1500) {
		s := randomStack(seed)
		s.NoFollow, s.DataOnly = false, nil
		var want int64
		for i, l := range s.Layers {
			d, _ := l.Open()
			n := bytesIn(t, d)
			if i == len(s.Layers)-1 {
				// A mark that nothing is below is none.
				n = 0
				s.Walk(context.Background(), "", nil, func(e *inspect.Entry) error {
					for k := range e.Sightings {
						if g := &e.Sightings[k]; g.Layer == i && g.IsFile() {
							n += g.Size()
						}
					}
					return nil
				})
			}
			want += n
		}
		errors := false
		w, err := s.Waste(context.Background(), inspect.WasteOptions{DuplicatesFrom: -1}, func(error) { errors = true })
		if err != nil {
			t.Fatal(err)
		}
		if errors {
			continue
		}
		var seen int64
		bad := false
		for _, line := range fromUnion(t, s) {
			bad = bad || strings.HasSuffix(line, " error")
		}
		s.Walk(context.Background(), "", nil, func(e *inspect.Entry) error {
			if d := e.Data(); d != nil {
				seen += d.Size()
			}
			return nil
		})
		if bad {
			continue
		}
		if w.Bytes != want || w.Shown != seen || w.Wasted != want-seen {
			t.Fatalf("seed %d: %d bytes, %d shown; counted otherwise %d and %d", seed, w.Bytes, w.Shown, want, seen)
		}
		done++
	}
	if done < 100 && !testing.Short() {
		t.Errorf("%d stacks only", done)
	}
}

func TestARenamedDirectoryIsNoWaste(t *testing.T) {
	s := stackOf(t, `
		old d
		old/f f 0644 "12345678"
		old/g f 0644 "1234"
		keep f 0644 "1"`, `
		old c 0 0:0
		new d trusted.overlay.redirect=/old
		new/g c 0 0:0`)
	w, err := s.Waste(context.Background(), inspect.WasteOptions{DuplicatesFrom: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.Bytes != 13 || w.Hidden != 4 || w.Shown != 9 {
		t.Errorf("%d bytes, %d hidden, %d shown; want 13, 4, 9", w.Bytes, w.Hidden, w.Shown)
	}
	if low, top := w.Layers[1], w.Layers[0]; low.Files != 3 || low.Dirs != 2 || top.Dirs != 2 || top.Whiteouts != 2 || top.Entries != 2 {
		t.Errorf("lower %+v\nupper %+v", low, top)
	}
}

func TestDuplicatesAreFoundByContent(t *testing.T) {
	s := stackOf(t, `
		a f 0644 "content"
		b f 0644 "other!!"
		h h a`, `
		c f 0600 "content"
		d f 0644 "shorter"
		e f 0644 "content"`)
	w, err := s.Waste(context.Background(), inspect.WasteOptions{DuplicatesFrom: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.Dup != 14 || len(w.Duplicates) != 1 || len(w.Duplicates[0].Copies) != 3 || w.Efficiency != 21.0/35 {
		t.Errorf("%+v", w)
	}
	if !slices.ContainsFunc(w.Duplicates[0].Copies, func(c inspect.Copy) bool { return c.Layer == 2 && c.Path == "/e" }) {
		t.Errorf("copies %v", w.Duplicates[0].Copies)
	}
}
