package union

import (
	"fmt"
	"slices"
	"testing"
)

// list reads a table in steps from a position on, calling between after each.
func (t *dirTable) list(step int, between func(shown string)) (names []string) {
	pos := uint64(0)
	for {
		n := 0
		for i := t.listFrom(pos); i >= 0 && n < step; i-- {
			e := &t.entries[i]
			if e.seq == 0 {
				continue
			}
			names = append(names, e.name)
			pos = e.pos()
			n++
		}
		if n == 0 {
			return names
		}
		between(names[len(names)-1])
	}
}

// A directory is listed in the order in which its parts were read, behind what
// was made since.
func TestListingOrder(t *testing.T) {
	var tab dirTable
	tab.put(entry{name: "known"})
	known := tab.lastSeq
	for i := range 20 {
		tab.put(entry{name: fmt.Sprint("read", i)})
	}
	tab.reverse(known)
	tab.put(entry{name: "made1"})
	tab.put(entry{name: "made2"})
	want := []string{"made2", "made1"}
	for i := range 20 {
		want = append(want, fmt.Sprint("read", i))
	}
	want = append(want, "known")
	if got := tab.list(3, func(string) {}); !slices.Equal(got, want) {
		t.Errorf("listed %q\nwant %q", got, want)
	}
	for _, name := range want {
		if e := tab.get(name); e == nil || e.name != name || tab.at(e.seq) != e {
			t.Errorf("%s is not found, or not at its place", name)
		}
	}
}

// mv in a loop over a directory, or an editor that writes a copy beside each
// file, must come to an end, and meet everything once.
func TestListingWhileChanging(t *testing.T) {
	for _, step := range []int{1, 2, 7, 100} {
		var tab dirTable
		for i := range 50 {
			tab.put(entry{name: fmt.Sprint("old", i)})
		}
		made := 0
		got := tab.list(step, func(shown string) {
			if made++; made > 1000 {
				t.Fatalf("steps of %d: the listing does not end", step)
			}
			tab.put(entry{name: fmt.Sprint("new", made)})
			tab.remove(shown)
		})
		slices.Sort(got)
		if len(slices.Compact(got)) != 50 || got[0] != "old0" {
			t.Errorf("steps of %d: listed %q", step, got)
		}
	}
}

// Positions never repeat and never are the start, whatever a directory has seen.
func TestPositionsOfOldDirectories(t *testing.T) {
	tab := dirTable{lastSeq: listTop - 3}
	for i := range 6 {
		tab.put(entry{name: fmt.Sprint(i)})
	}
	if got := tab.list(1, func(string) {}); !slices.Equal(got, []string{"5", "4", "3", "2", "1", "0"}) {
		t.Errorf("listed %q", got)
	}
}

// stat d/old; rm d/gone; ls d: what was removed before the first listing stays
// away, and everything else is there.
func TestFirstListingAfterARemoval(t *testing.T) {
	var tab dirTable
	tab.put(entry{name: "old"})
	tab.put(entry{name: "gone"})
	tab.remove("gone")
	known := tab.lastSeq
	tab.put(entry{name: "a"})
	tab.put(entry{name: "b"})
	tab.reverse(known)
	got := tab.list(1, func(string) {})
	if want := []string{"a", "b", "old"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	for _, name := range got {
		if tab.get(name) == nil {
			t.Errorf("%s is listed and not found", name)
		}
	}
	if tab.get("gone") != nil {
		t.Error("what was removed is found")
	}
}
