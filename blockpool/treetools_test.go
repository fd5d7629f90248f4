package blockpool

import (
	"maps"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// A seenTree is what a dataset has: its items, and the sums of its records that are
// not zeros, by number.
type seenTree struct {
	recordSize int
	items      map[string]string
	records    map[uint64]uint64
}

func (s *seenTree) equal(o *seenTree) bool {
	return s == o || s != nil && o != nil && s.recordSize == o.recordSize && maps.Equal(s.items, o.items) && maps.Equal(s.records, o.records)
}

// seeTree reads all of a dataset, which zeros of no record may not be among.
func seeTree(t *Tree) (*seenTree, error) {
	s := &seenTree{t.RecordSize(), map[string]string{}, map[uint64]uint64{}}
	err := t.Items([]byte{ItemCounted}, nil, func(key, value []byte) error {
		s.items[string(key)] = string(value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	b := make([]byte, s.recordSize)
	for at, end := uint64(0), t.v.entry.Load().records(); at < end; {
		data, next, err := t.v.mapped(at, end)
		if err != nil {
			return nil, err
		}
		for _, x := range data {
			for n := x.first; n < x.end; n++ {
				if err := t.ReadObject(n>>objectShift, b, int64(n&(1<<objectShift-1))*int64(len(b))); err != nil {
					return nil, err
				}
				if !isZero(b) {
					s.records[n] = format.Sum(b)
				}
			}
		}
		at = next
	}
	return s, nil
}

// seen is what the model has, in records of that size.
func (m *treeModel) seen(size int) *seenTree {
	s := &seenTree{size, maps.Clone(m.items), map[uint64]uint64{}}
	b := make([]byte, size)
	for object, content := range m.objects {
		for at := 0; at < len(content); at += size {
			clear(b)
			if copy(b, content[at:]); !isZero(b) {
				s.records[object<<objectShift+uint64(at/size)] = format.Sum(b)
			}
		}
	}
	return s
}

// see reads all of a dataset or a snapshot of one.
func (b *bench) see(name string) *seenTree {
	b.Helper()
	t := b.tree(name)
	defer t.Close()
	s, err := seeTree(t)
	b.must(err)
	return s
}

// datasets reads all datasets and their snapshots.
func (b *bench) datasets() map[string]*seenTree {
	b.Helper()
	all := map[string]*seenTree{}
	for _, i := range b.Volumes() {
		if i.IsDataset() && !i.Receiving {
			all[i.Name] = b.see(i.Name)
		}
	}
	return all
}

// missing compares a dataset that lost some of its tree with what it was: each item
// and each record is right or gone. It returns how many are gone.
func (b *bench) missing(name string, want *seenTree) (n int) {
	b.Helper()
	is := b.see(name)
	for key, value := range is.items {
		if was, ok := want.items[key]; !ok || was != value {
			b.Errorf("%s: item %x is what it never was", name, key)
		}
	}
	for key, sum := range is.records {
		if was, ok := want.records[key]; !ok || was != sum {
			b.Errorf("%s: record %d of object %d is neither right nor zeros", name, key&(1<<objectShift-1), key>>objectShift)
		}
	}
	return len(want.items) - len(is.items) + len(want.records) - len(is.records)
}

func TestALostDatasetComesBackAsOne(t *testing.T) {
	for name, lose := range map[string]func(v *vandal){
		"its entry":     func(v *vandal) { v.batch.Put(meta.Volumes, key64(v.entry("set").id), []byte{9}) },
		"all entries":   func(v *vandal) { v.loseEntries("set", "set@snap", "clone") },
		"all its roots": func(v *vandal) { v.loseRoots("set", "set@snap", "clone") },
	} {
		t.Run(name, func(t *testing.T) {
			b := vandalized(t)
			b.open()
			want, objects := b.datasets(), b.volumeInfo("set").Objects
			b.must(b.Close())
			b.vandalize(lose)
			p, err := b.repaired(RepairOptions{Source: RepairNewest})
			b.must(err)
			found := false
			for _, v := range p.Volumes {
				if !v.Lost {
					continue
				}
				if v.Kind != "dataset" {
					t.Errorf("%s came back as a %s", v.Name, v.Kind)
					continue
				}
				found = found || b.see(v.Name).equal(want["set"]) && b.volumeInfo(v.Name).Objects == objects
			}
			if !found {
				t.Errorf("nothing that came back is what set was: %+v, %q", p.Volumes, p.Losses)
			}
			b.clean(b.checked())
			for _, v := range p.Volumes {
				if v.Lost { // and it can be used
					tree := b.tree(v.Name)
					b.must(tree.Apply(ctx, &Batch{Writes: []ObjectWrite{{5, 0, []byte("again")}}, Items: []ItemChange{{itemKey(999), []byte("x")}}}))
					b.must(tree.Close())
				}
			}
			b.clean(b.checked())
		})
	}
}

// loseEntries breaks entries of the catalogue.
func (v *vandal) loseEntries(names ...string) {
	for _, name := range names {
		v.batch.Put(meta.Volumes, key64(v.entry(name).id), []byte{9})
	}
}

// loseRoots removes the roots of trees.
func (v *vandal) loseRoots(names ...string) {
	for _, name := range names {
		v.batch.Delete(meta.Nodes, key64(uint64(v.entry(name).root)))
	}
}
