package inspect_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/laminafs/lamina/fs/inspect"
)

// What users would lose: a difference that is not told, because the two stacks share
// the layers that it lies in.
func TestWhatStacksShareChangesNoDifference(t *testing.T) {
	done, with := 0, 0
	for seed := range seeds(3000) {
		a, b, low := randomStack(3*seed), randomStack(3*seed+1), randomStack(3*seed+2)
		stack := func(from *inspect.Stack, view string) *inspect.Stack {
			s := &inspect.Stack{Name: from.Name, NoFollow: low.NoFollow, DataOnly: low.DataOnly}
			s.Layers = append(slices.Clone(from.Layers[:len(from.Layers)-1]), low.Layers...)
			for i := range s.Layers {
				s.Layers[i].View = view
			}
			return s
		}
		diff := func(viewOfB string) (lines []string, failed bool) {
			old, new := stack(a, ""), stack(b, viewOfB)
			defer old.Close()
			defer new.Close()
			err := inspect.Diff(t.Context(), old, new, inspect.DiffOptions{Times: true}, func(error) { failed = true }, func(c *inspect.Change) error {
				lines = append(lines, fmt.Sprint(c.Path, " ", c.Kind, " ", c.What.Names(), " ", c.From, " ", c.Within))
				return nil
			})
			return lines, failed || err != nil
		}
		want, failed1 := diff("another") // of layers that are not the same nothing is left out
		got, failed2 := diff("")
		if failed1 || failed2 {
			continue // what cannot be read is told of where it is looked at
		}
		if !slices.Equal(want, got) {
			t.Fatalf("seed %d\nwant %q\ngot  %q", seed, want, got)
		}
		done++
		if len(want) > 0 {
			with++
		}
	}
	if with < 100 && !testing.Short() {
		t.Errorf("%d pairs, of which %d differ, only", done, with)
	}
}

// A directory that does not fit into one chunk of names, with directories that are
// more than are kept open: every name is visited once, in order.
func TestLargeDirectoriesAreWalkedInOrder(t *testing.T) {
	const dirs, files = 300, 1200
	low, top := "", ""
	for i := range dirs {
		low += fmt.Sprintf("d%04d d\nd%04d/f f 0644 \"x\"\n", i, i)
	}
	for i := range files {
		low += fmt.Sprintf("f%04d f 0644 \"low\"\n", i)
		if i%3 == 0 {
			top += fmt.Sprintf("f%04d c 0 0:0\n", i)
		}
	}
	s := stackOf(t, low, top)
	defer s.Close()
	var paths []string
	err := s.Walk(t.Context(), "", func(err error) { t.Error(err) }, func(e *inspect.Entry) error {
		if e.Top() != nil && e.Path != "" {
			paths = append(paths, e.Path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := 2*dirs + files - files/3; len(paths) != want {
		t.Errorf("%d names, want %d", len(paths), want)
	}
	if !slices.IsSorted(paths) {
		t.Error("not in order")
	}
	// A walk that ends early leaves nothing open that Close would wait for.
	n := 0
	err = s.Walk(t.Context(), "", nil, func(e *inspect.Entry) error {
		if n++; n > 50 {
			return fmt.Errorf("enough")
		}
		return nil
	})
	if err == nil || err.Error() != "enough" {
		t.Errorf("it ended with %v", err)
	}
}
