package inspect_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/whiteout"
)

// What users would lose: files that come back, or go, because a layer was
// converted.
func TestAConvertedLayerShowsTheSameTree(t *testing.T) {
	formats := []whiteout.Format{whiteout.Overlay, whiteout.OverlayUser, whiteout.OverlayXattr, whiteout.OverlayUserXattr, whiteout.Aufs, whiteout.OCI}
	done := map[whiteout.Format]int{}
	for seed := range seeds(2500) {
		r := rand.New(rand.NewPCG(seed, 9))
		s := randomStack(seed)
		s.NoFollow = false
		to := formats[r.IntN(len(formats))]
		if len(s.Layers) == 1 {
			continue // of the lowest layer the union need not heed any mark
		}
		i := r.IntN(len(s.Layers) - 1)
		src, err := s.Layers[i].Open()
		if err != nil {
			t.Fatal(err)
		}
		before := fromUnion(t, s)
		if slices.ContainsFunc(before, func(l string) bool { return strings.HasSuffix(l, " error") }) {
			continue // a mark that the union refuses, wherever it means nothing
		}
		copied := memlayer.New(memlayer.Options{})
		if err := inspect.CopyLayer(context.Background(), src, copied.Root(), nil); err != nil {
			t.Fatal(err)
		}
		plan, err := inspect.PlanConversion(copied.Root(), whiteout.FuseOverlayfs, to)
		if errors.Is(err, whiteout.ErrNotRepresentable) || errors.Is(err, whiteout.ErrMalformed) {
			continue // refused, for a reason
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := plan.Apply(copied.Root()); err != nil {
			t.Fatalf("seed %d: to %v: %v", seed, to, err)
		}
		s.Layers[i].Open = func() (layer.Dir, error) { return copied.Root(), nil }
		s.Close()
		if after := fromUnion(t, s); !slices.Equal(sizeless(before), sizeless(after)) {
			t.Fatalf("seed %d, layer %d to %v\nbefore %s\nafter  %s", seed, i, to, strings.Join(before, "\n       "), strings.Join(after, "\n       "))
		}
		again, err := inspect.PlanConversion(copied.Root(), whiteout.FuseOverlayfs, to)
		if err != nil || again.Steps() != 0 {
			t.Fatalf("seed %d: converting to %v again: %v, %d steps", seed, to, err, again.Steps())
		}
		open := slices.DeleteFunc(copied.Open(), func(p string) bool { return p == "/" }) // roots are the test's
		if len(open) > 0 {
			t.Fatalf("seed %d: left open: %q", seed, open)
		}
		done[to]++
	}
	for _, f := range formats {
		if done[f] < 15 && !testing.Short() {
			t.Errorf("%v: %d layers only", f, done[f])
		}
	}
}

func check(t *testing.T, s *inspect.Stack, work layer.Dir) (kinds []string, found []inspect.Finding) {
	t.Helper()
	found, err := inspect.Check(context.Background(), s, work, func(err error) { t.Log(err) })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		kinds = append(kinds, string(f.Kind)+" "+string(f.Path))
	}
	slices.Sort(kinds)
	return kinds, found
}

func TestCheckFindsAndFixes(t *testing.T) {
	s := stackOf(t, `
		there f
		d d`, `
		there c 0 0:0
		nothing c 0 0:0
		.wh.nowhere f
		moved d trusted.overlay.redirect=/gone
		bad d trusted.overlay.redirect="a//b"
		odd d trusted.overlay.opaque=maybe
		d d trusted.overlay.opaque=y
		d/x c 0 0:0
		meta f 0644 "x" user.overlay.metacopy=""
		lone f user.overlay.whiteout=y
		.wh..wh.tmp f`)
	work := memlayer.New(memlayer.Options{})
	work.MustBuild("work d\nwork/#1 f \"x\"\nwork/#2 d\nwork/#2/f f")
	got, found := check(t, s, work.Root())
	want := []string{"dangling /meta", "dangling /moved", "leftover /.wh..wh.tmp", "leftover /work/#1", "leftover /work/#2", "meaningless /odd",
		"mixed-formats /", "mixed-formats /", "needless-whiteout /.wh.nowhere", "needless-whiteout /d/x", "needless-whiteout /nothing",
		"unannounced-whiteout /lone", "unreadable /bad"}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	before := fromUnion(t, s)
	root, _ := s.Layers[0].Open()
	if n, err := inspect.Fix(root, work.Root(), found); n != 6 || err != nil {
		t.Errorf("%d repairs, %v", n, err)
	}
	s.Close()
	if after := fromUnion(t, s); !slices.Equal(before, after) {
		t.Errorf("before %q\nafter  %q", before, after)
	}
	for _, k := range first(check(t, s, work.Root())) {
		if strings.HasPrefix(k, "needless") || strings.HasPrefix(k, "leftover /work") || strings.HasPrefix(k, "meaningless") {
			t.Errorf("after fix: %s", k)
		}
	}
}

func first(k []string, _ []inspect.Finding) []string { return k }

// What users would lose: a repair of a sound-looking layer that changes the tree.
func TestFixNeverChangesWhatIsSeen(t *testing.T) {
	repairs := 0
	for seed := range seeds(1500) {
		s := randomStack(seed)
		before := fromUnion(t, s)
		found, err := inspect.Check(context.Background(), s, nil, func(error) {})
		if err != nil {
			continue
		}
		root, _ := s.Layers[0].Open()
		n, err := inspect.Fix(root, nil, found)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		repairs += n
		s.Close()
		if after := fromUnion(t, s); !slices.Equal(before, after) {
			t.Fatalf("seed %d\nbefore %s\nafter  %s\n%+v", seed, strings.Join(before, "\n       "), strings.Join(after, "\n       "), found)
		}
	}
	if repairs < 100 && !testing.Short() {
		t.Errorf("%d repairs only", repairs)
	}
}
