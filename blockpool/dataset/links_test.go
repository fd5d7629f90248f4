package dataset_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
)

// A gapTree counts the removed items that a pool would have to pass to find what it is
// asked for, as if nothing had been written yet since they were removed.
type gapTree struct {
	*memtree.Tree
	gone   map[string]bool
	passed int
}

func (t *gapTree) Apply(ctx context.Context, b *blockpool.Batch) error {
	for _, i := range b.Items {
		if i.Key[0] == dataset.KeyLink {
			t.gone[string(i.Key)] = i.Value == nil
		}
	}
	return t.Tree.Apply(ctx, b)
}

func (t *gapTree) Items(from, to []byte, f func(key, value []byte) error) error {
	end := string(to)
	err := t.Tree.Items(from, to, func(key, value []byte) error {
		end = string(key)
		return f(key, value)
	})
	for key, gone := range t.gone {
		if gone && string(from) <= key && key < end {
			t.passed++
		}
	}
	return err
}

// rm -r of a directory with many names of one file, such as the empty ones of a cache of
// packages, must not take longer for each name than for the one before.
func TestNamesOfAFileGoInTheOrderOfAListingWithoutLookingBack(t *testing.T) {
	const names = 300
	for _, backwards := range []bool{false, true} {
		m := newMount(t, dataset.Options{})
		m.must(m.mkdir("d"))
		m.must(m.create("d/0", "x"))
		for i := range names {
			m.must(m.link("d/0", fmt.Sprint("d/", i+1)))
		}
		m.must(m.Close())
		tree := &gapTree{Tree: m.tree.Open(), gone: map[string]bool{}}
		m.tree = tree.Tree
		fs, err := dataset.New(tree, m.opt)
		m.must(err)
		m.FS = fs

		list := m.listing("d")
		if backwards {
			slices.Reverse(list)
		}
		for _, name := range list {
			m.must(m.unlink("d/" + name))
		}
		if tree.passed > 2*names {
			t.Errorf("backwards %v: passed %d removed names for %d that went", backwards, tree.passed, names)
		}
		m.check(m.tree)
	}
}
