package blockpool

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// repaired plans and does a repair, and opens the pool if that worked.
func (b *bench) repaired(o RepairOptions) (*RepairPlan, error) {
	b.Helper()
	o.Storage = b.journal
	p, err := PlanRepair(ctx, b.dir, o)
	if err != nil {
		return nil, err
	}
	if _, err := p.Do(ctx); err != nil {
		return p, err
	}
	b.open()
	return p, nil
}

// A past is which records there were, by their place in a volume and their sum.
type past map[[2]uint64]bool

// add notes what the volumes have now.
func (p past) add(b *bench) {
	b.Helper()
	for _, i := range b.Volumes() {
		if strings.Contains(i.Name, "@") {
			continue // was in a volume before
		}
		v := b.volume(i.Name)
		size := v.RecordSize()
		v.Close()
		for at, content := 0, b.content(i.Name); at < len(content); at += size {
			p[[2]uint64{uint64(at), format.Sum(content[at:min(at+size, len(content))])}] = true
		}
	}
}

// holes compares content that lost records with what it was: each record is right
// or zeros, or, when there is a past, one of those that it had. It returns how many
// are zeros that were not.
func (b *bench) holes(name string, want []byte, earlier past) (n int) {
	b.Helper()
	v := b.volume(name)
	defer v.Close()
	size := v.RecordSize()
	got := make([]byte, v.Size())
	if _, err := v.ReadAt(got, 0); err != nil && err != io.EOF {
		b.Fatal(err)
	}
	for at := 0; at < len(want); at += size {
		end := min(at+size, len(want))
		var is []byte
		if at < len(got) {
			is = got[at:min(end, len(got))]
		}
		switch {
		case bytes.Equal(is, want[at:end]):
		case bytes.Equal(is, make([]byte, len(is))):
			n++
		case earlier[[2]uint64{uint64(at), format.Sum(is)}]:
		default:
			b.Errorf("%s: record at %d is neither right nor zeros", name, at)
		}
	}
	return n
}

// TestRepairOfEveryPlantedDamage repairs what a check finds. What the damage has
// nothing to do with is as it was; of what it has, records are right or holes.
func TestRepairOfEveryPlantedDamage(t *testing.T) {
	for _, d := range damages {
		if d.class == ClassLeaks || d.class == ClassClean || kinds[d.kind].severity == Degraded {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			b := vandalized(t)
			b.open()
			want, sets := b.contents(), b.datasets()
			b.must(b.Close())
			if d.meta != nil {
				b.vandalize(d.meta)
			} else {
				d.plant(b)
			}
			p, err := b.repaired(RepairOptions{Data: true, Force: true, NewLog: true})
			switch d.kind {
			case FindLabelDiffers, FindDeviceSize, FindMetadataMissing:
				// Nothing to repair it from, or nothing that repair could do.
				if err != nil {
					return
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.Needed || len(p.Steps) == 0 || p.Source == "" {
				t.Errorf("%+v", p)
			}
			var text strings.Builder
			b.must(p.WriteText(&text))
			for name, content := range want {
				if _, err := b.Volume(name); err != nil {
					if name == "vol" || len(p.Losses) == 0 {
						t.Errorf("%s is gone\n%s", name, text.String())
					}
					continue
				}
				if n := b.holes(name, content, nil); n > 0 && len(p.Losses) == 0 {
					t.Errorf("%s has %d holes, and nobody said so\n%s", name, n, text.String())
				}
			}
			for name, set := range sets {
				if _, err := b.Volume(name); err != nil {
					if name == "clone" || len(p.Losses) == 0 {
						t.Errorf("%s is gone\n%s", name, text.String())
					}
				} else if n := b.missing(name, set); n > 0 && len(p.Losses) == 0 {
					t.Errorf("%s lacks %d records and items, and nobody said so\n%s", name, n, text.String())
				}
			}
			b.work(12, 3)
			if d.kind != FindDeviceSize && d.kind != FindLabelDiffers {
				b.clean(b.checked())
			}
			if kept, err := filepath.Glob(filepath.Join(b.dir, "*.damaged-*")); err != nil || len(kept) == 0 {
				t.Errorf("the damaged replicas were not kept: %v", err)
			}
		})
	}
}

func TestALostEntryOfTheCatalogueComesBackUnderLostFound(t *testing.T) {
	b := vandalized(t)
	b.open()
	want := b.contents()
	b.must(b.Close())
	b.vandalize(func(v *vandal) { v.batch.Put(meta.Volumes, key64(v.entry("other").id), []byte{9}) })
	p, err := b.repaired(RepairOptions{Source: RepairNewest})
	b.must(err)
	i := slices.IndexFunc(p.Volumes, func(v Recovered) bool { return v.Lost })
	if i < 0 || len(p.Losses) != 1 {
		t.Fatalf("%+v", p)
	}
	if got := b.content(p.Volumes[i].Name); !bytes.Equal(got, want["other"]) {
		t.Errorf("%s is not what other was", p.Volumes[i].Name)
	}
	b.clean(b.checked())
}

func TestALostRootComesBackInOnePieceFromItsParts(t *testing.T) {
	b := vandalized(t)
	b.open()
	want := b.contents()
	b.must(b.Close())
	b.vandalize(func(v *vandal) {
		root := v.entry("other").root
		if v.node(root).Level() == 0 {
			t.Fatal("the tree has one leaf")
		}
		v.batch.Delete(meta.Nodes, key64(uint64(root)))
	})
	p, err := b.repaired(RepairOptions{Source: RepairNewest})
	b.must(err)
	if got := b.content("lost-found/other"); !bytes.Equal(got, want["other"]) {
		t.Errorf("it is not what was lost: %+v", p.Volumes)
	}
	b.clean(b.checked())
}

func TestThePlanChangesNothing(t *testing.T) {
	b := vandalized(t)
	b.vandalize(func(v *vandal) { v.batch.Delete(meta.NodeMap, key64(0)) })
	read := func() map[string]string {
		files := map[string]string{}
		found, err := filepath.Glob(filepath.Join(b.dir, "*"))
		b.must(err)
		for _, path := range found {
			p, err := os.ReadFile(path)
			b.must(err)
			files[path] = string(p)
		}
		for _, d := range b.journal.Devices() {
			files[d.Path()] = string(d.Peek(0, d.Size()))
		}
		return files
	}
	before := read()
	p, err := PlanRepair(ctx, b.dir, RepairOptions{Storage: b.journal, Data: true})
	b.must(err)
	if !p.Needed || len(p.Losses) > 0 || p.Source != RepairNewest {
		t.Errorf("%+v", p)
	}
	if !reflect.DeepEqual(read(), before) {
		t.Error("files or devices have changed")
	}
}

func TestAPoolThatIsWholeNeedsNoRepair(t *testing.T) {
	b := vandalized(t)
	p, err := b.repaired(RepairOptions{})
	if err != nil || p.Needed {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestTheStateBeforeTheLastIsFoundWhenTheLastIsGone breaks pages that only the last
// commit has.
func TestTheStateBeforeTheLastIsFoundWhenTheLastIsGone(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.work(60, 7)
	b.must(b.Sync(ctx))
	want := b.contents()
	txg := b.meta.Txg()
	b.must(b.CreateVolume(ctx, "last", 1<<20, VolumeOptions{}))
	b.Abandon()
	file, err := os.ReadFile(b.replica(0))
	b.must(err)
	clear(file[4096*(1+newestPage(file))-4096:][16:80]) // the newest meta page
	b.must(os.WriteFile(b.replica(0), file, 0o600))
	// bbolt itself would take the other page in silence; a label forbids that.
	d := b.device(0)
	l, err := unpackLabel(d.Peek(0, labelSize))
	b.must(err)
	l.txg = txg + 1
	text, err := l.pack()
	b.must(err)
	d.Poke(0, text)
	if _, err := Open(b.dir, b.opts); !errors.Is(err, ErrIncomplete) {
		t.Errorf("an old state was opened: %v", err)
	}
	if p, err := b.repaired(RepairOptions{}); !errors.Is(err, ErrIncomplete) || !p.Force {
		t.Fatalf("went back without force: %v", err)
	}
	p, err := b.repaired(RepairOptions{Force: true})
	b.must(err)
	if p.Txg != txg {
		t.Errorf("went back to %d, not %d", p.Txg, txg)
	}
	if got := b.contents(); !reflect.DeepEqual(got, want) {
		t.Error("contents differ")
	}
	b.clean(b.checked())
}

// newestPage returns which meta page of a bbolt file has the higher transaction.
func newestPage(file []byte) int {
	txid := func(i int) (n uint64) {
		for j := range 8 {
			n |= uint64(file[i*4096+16+48+j]) << (8 * j)
		}
		return n
	}
	if txid(1) > txid(0) {
		return 1
	}
	return 0
}

// TestValuesAreGatheredFromPagesWhenTheFilesAreBroken takes both meta pages away:
// for bbolt nothing is left.
func TestValuesAreGatheredFromPagesWhenTheFilesAreBroken(t *testing.T) {
	for seed := range uint64(4) {
		b := newBench(t, Config{MetadataProfile: Mirror}, 1, 64<<20)
		b.work(100, 20+seed)
		b.must(b.Sync(ctx))
		want := b.contents()
		b.must(b.Close())
		for i := range 2 {
			file, err := os.ReadFile(b.replica(i))
			b.must(err)
			clear(file[:2*4096])
			b.must(os.WriteFile(b.replica(i), file, 0o600))
		}
		p, err := b.repaired(RepairOptions{})
		b.must(err)
		if p.Source != RepairPages || len(p.Losses) == 0 {
			t.Errorf("%+v", p)
		}
		for name, content := range want {
			if _, err := b.Volume(name); err != nil {
				t.Errorf("%s is gone: %+v", name, p)
			} else if n := b.holes(name, content, nil); n > 0 {
				t.Errorf("%s has %d holes", name, n)
			}
		}
		b.work(20, seed)
		b.clean(b.checked())
	}
}

// TestRandomDamageIsRepairedToWhatIsRightOrAHole flips bytes of a replica at random and
// repairs: what comes of it is clean and holds right records or holes, or nothing
// is changed. Only what is gathered from pages may also be as it was earlier, and
// then the plan says so.
func TestRandomDamageIsRepairedToWhatIsRightOrAHole(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	all := past{}
	b.worked = func() { all.add(b) }
	b.work(100, 31)
	for range 3 { // so that the state before the last has the same in it
		b.must(b.Sync(ctx))
	}
	want := b.contents()
	b.must(b.Close())
	good, err := os.ReadFile(b.replica(0))
	b.must(err)
	var values []int
	for at := range len(good) - 64 {
		if good[at] == 'L' && good[at+1] == 'm' && good[at+2] == 1 {
			values = append(values, at)
		}
	}
	worked := 0
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 5))
		bad := slices.Clone(good)
		for range 1 + rng.IntN(20) {
			at := values[rng.IntN(len(values))] + rng.IntN(200)
			bad[min(at, len(bad)-1)] ^= 1 << rng.IntN(8)
		}
		b.must(os.WriteFile(b.replica(0), bad, 0o600))
		p, err := b.repaired(RepairOptions{Force: true})
		if err != nil {
			if after, err := os.ReadFile(b.replica(0)); err != nil || !bytes.Equal(after, bad) {
				t.Errorf("seed %d: it failed and has changed the replica", seed)
			}
			t.Logf("seed %d: %v", seed, err)
			continue
		}
		worked++
		var earlier past
		if p.Source == RepairPages {
			earlier = all
			if !slices.ContainsFunc(p.Losses, func(l string) bool { return strings.Contains(l, "as they were earlier") }) {
				t.Errorf("seed %d: from pages, and nobody said what that means: %q", seed, p.Losses)
			}
		}
		for _, i := range b.Volumes() {
			if content, ok := want[i.Name]; ok && !strings.HasPrefix(i.Name, lostFound) {
				if n := b.holes(i.Name, content, earlier); n > 0 && len(p.Losses) == 0 {
					t.Errorf("seed %d: %s has %d holes", seed, i.Name, n)
				}
			}
		}
		b.clean(b.checked())
		b.must(b.Close())
	}
	if worked < 15 {
		t.Errorf("%d of 25 could be repaired", worked)
	}
	b.must(os.WriteFile(b.replica(0), good, 0o600))
	b.open()
}
