package meta

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta/metatest"
)

// someCommits makes a pool of some commits and returns its contents.
func someCommits(t *testing.T, ps []string) model {
	t.Helper()
	s := create(t, ps, small)
	m, rng := model{}, rand.New(rand.NewPCG(6, 6))
	for txg := uint64(1); txg <= 20; txg++ {
		if err := s.Commit(txg, m.script(rng, 40)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestFlipsInOneOfTwoReplicasAreHealedWhenOpened damages a closed file.
func TestFlipsInOneOfTwoReplicasAreHealedWhenOpened(t *testing.T) {
	ps := paths(scratch(t), 2)
	m := someCommits(t, ps)
	whole := [][]byte{read(t, ps[0]), read(t, ps[1])}
	rng := rand.New(rand.NewPCG(7, 7))
	rebuilt := 0
	for i := range 500 / slower {
		which := rng.IntN(2)
		bad, off := metatest.Flip(rng, whole[which])
		write(t, ps[which], bad)
		write(t, ps[1-which], whole[1-which])
		s, err := Open(ps, testGUID, small)
		if err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		if err := m.compare(s); err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		if s.Replicas()[which].Rebuilt {
			rebuilt++
		}
		later := m.clone()
		if err := s.Commit(100, later.script(rng, 20)); err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		s.Close()
		for _, p := range ps { // each alone, without damage
			s, err := Open([]string{p}, testGUID, small)
			if err != nil {
				t.Fatalf("flip %d at %d: %v", i, off, err)
			}
			if err := later.compare(s); err != nil || s.Replicas()[0].Problem != nil {
				t.Fatalf("flip %d at %d: %v, %v", i, off, err, s.Replicas()[0].Problem)
			}
			s.Close()
		}
	}
	t.Logf("%d flips, %d of them in places that matter", 500/slower, rebuilt)
}

// flipInPlace writes the damage into a file that is open.
func flipInPlace(t *testing.T, path string, bad []byte, off int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bad[off:min(off+512, len(bad))], int64(off)); err != nil {
		t.Fatal(err)
	}
}

// TestFlipsInOneOfTwoOpenReplicasNeverShow damages a file that is in use: what
// is read comes from the other one, the owner hears of it and recopies, and
// commits go on.
func TestFlipsInOneOfTwoOpenReplicasNeverShow(t *testing.T) {
	ps := paths(scratch(t), 2)
	m := someCommits(t, ps)
	whole := read(t, ps[0])
	rng := rand.New(rand.NewPCG(8, 8))
	heard := 0
	for i := range 500 / slower {
		write(t, ps[0], whole)
		write(t, ps[1], whole)
		o, told := small, false
		o.Event = func(e Event) { told = told || e.Kind == Damaged }
		s, err := Open(ps, testGUID, o)
		if err != nil {
			t.Fatal(err)
		}
		which := rng.IntN(2)
		bad, off := metatest.Flip(rng, whole)
		flipInPlace(t, ps[which], bad, off)
		if i%2 == 0 { // else the commit is the first to meet the damage
			if err := m.compare(s); err != nil {
				t.Fatalf("flip %d at %d: %v", i, off, err)
			}
		}
		if told && i%4 == 0 {
			if err := s.Recopy(ps[which]); err != nil {
				t.Fatalf("flip %d at %d: %v", i, off, err)
			}
		}
		later := m.clone()
		for txg := uint64(100); txg < 103; txg++ {
			if err := s.Commit(txg, later.script(rng, 20)); err != nil {
				t.Fatalf("flip %d at %d: %v", i, off, err)
			}
		}
		if err := later.compare(s); err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		if told {
			heard++
		}
		s.Close()
		if s, err = Open(ps, testGUID, small); err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		if err := later.compare(s); err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		s.Close()
	}
	t.Logf("%d flips, %d were met by a reader", 500/slower, heard)
}

// TestFlipsInTheOnlyReplicaAreRefused: each value is right or an error that
// says damage, whether the file was damaged before it was opened or after.
func TestFlipsInTheOnlyReplicaAreRefused(t *testing.T) {
	ps := paths(scratch(t), 1)
	m := someCommits(t, ps)
	whole := read(t, ps[0])
	rng := rand.New(rand.NewPCG(9, 9))
	refused, values := 0, 0
	for i := range 500 / slower {
		bad, off := metatest.Flip(rng, whole)
		write(t, ps[0], whole)
		if i%2 == 0 {
			write(t, ps[0], bad)
		}
		s, err := Open(ps, testGUID, small)
		if err != nil {
			if !errors.Is(err, format.ErrDamaged) {
				t.Fatalf("flip %d at %d: %v", i, off, err)
			}
			refused++
			continue
		}
		if s.Txg() != 20 { // as after a crash; the caller is told
			if s.Txg() != 19 || s.Replicas()[0].Problem == nil {
				t.Fatalf("flip %d at %d: txg %d, %v", i, off, s.Txg(), s.Replicas()[0].Problem)
			}
			s.Close()
			continue
		}
		if i%2 != 0 {
			flipInPlace(t, ps[0], bad, off)
		}
		n, err := m.rightOrDamaged(s)
		if err != nil {
			t.Fatalf("flip %d at %d: %v", i, off, err)
		}
		if n > 0 {
			values++
		}
		later := m.clone()
		b := later.script(rng, 20)
		if err := s.Commit(100, b); err == nil {
			_, err = later.rightOrDamaged(s)
			if err != nil {
				t.Fatalf("flip %d at %d: after a commit: %v", i, off, err)
			}
		} else if _, err := m.rightOrDamaged(s); err != nil {
			t.Fatalf("flip %d at %d: after a refused commit: %v", i, off, err)
		}
		s.Close()
	}
	t.Logf("%d flips: %d times the file was refused, %d times values of it", 500/slower, refused, values)
}

// TestLostMetaPageOfAnOpenFileStopsCommits: bbolt would go on from the other
// meta page, and the last commit would be gone without a word.
func TestLostMetaPageOfAnOpenFileStopsCommits(t *testing.T) {
	ps := paths(scratch(t), 1)
	m := someCommits(t, ps)
	s := reopen(t, ps, small)
	newest := int(s.replicas[0].r.txid % 2)
	flipInPlace(t, ps[0], make([]byte, 2*pageSize), newest*pageSize)
	if err := s.Commit(21, m.clone().script(rand.New(rand.NewPCG(1, 1)), 20)); !errors.Is(err, ErrNoReplica) || !errors.Is(err, format.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	m.check(t, s)
	s.Close()
	s = reopen(t, ps, small)
	if s.Txg() != 19 || s.Replicas()[0].Problem == nil {
		t.Errorf("txg %d afterwards, %v", s.Txg(), s.Replicas()[0].Problem)
	}
}

// TestPageThatWasNeverWrittenIsFoundWhenOpened puts the older state of a page
// in place of the newer one, as a disk does that loses a write and says nothing.
// Layout, keys and seals are right; what they show is old.
func TestPageThatWasNeverWrittenIsFoundWhenOpened(t *testing.T) {
	ps := paths(scratch(t), 2)
	s := create(t, ps, small)
	m := model{}
	value := func(i int, state string) string {
		return fmt.Sprintf("%s of %04d", state, i) + string(make([]byte, 900))
	}
	for txg, state := range []string{"old", "new"} {
		b := new(Batch)
		for i := range 100 {
			if key := fmt.Sprintf("%04d", i); state == "old" || i == 50 {
				b.Put(Nodes, []byte(key), []byte(value(i, state)))
				m[opKey{Nodes, key}] = value(i, state)
			}
		}
		if err := s.Commit(uint64(1+txg), b); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	file := read(t, ps[0])
	at := func(state string) int { return bytes.Index(file, []byte(state+" of 0050")) / pageSize * pageSize }
	older, newer := at("old"), at("new")
	copy(file[newer+8:newer+pageSize], file[older+8:]) // but for the page's own number
	write(t, ps[0], file)
	s = reopen(t, ps[:1], small)
	if r := s.Replicas()[0]; !errors.Is(r.Problem, format.ErrDamaged) {
		t.Errorf("alone: %v", r.Problem)
	}
	s.Close()
	s = reopen(t, ps, small)
	m.check(t, s)
	if r := s.Replicas()[0]; !r.Rebuilt {
		t.Errorf("beside a good one: %+v", r)
	}
}

// TestWrongFreeListKeepsBboltAway: bbolt would write over pages that are in use.
func TestWrongFreeListKeepsBboltAway(t *testing.T) {
	ps := paths(scratch(t), 1)
	someCommits(t, ps)
	whole := read(t, ps[0])
	meta := checkFile(whole, testGUID).meta
	list := meta.freelist * pageSize
	for name, spoil := range map[string]func(file []byte){
		"a live page":     func(file []byte) { native.PutUint64(file[list+headerSize:], meta.root) },
		"one page less":   func(file []byte) { native.PutUint16(file[list+10:], native.Uint16(file[list+10:])-1) },
		"a page twice":    func(file []byte) { copy(file[list+headerSize:][:8], file[list+headerSize+8:]) },
		"a page too high": func(file []byte) { native.PutUint64(file[list+headerSize:], meta.limit) },
	} {
		file := slices.Clone(whole)
		spoil(file)
		if f := checkFile(file, testGUID); !errors.Is(f.broken, format.ErrDamaged) {
			t.Errorf("%s: %v", name, f.broken)
		}
	}
}

// TestDamagedKeyIsNotAbsent changes the name of a key in the file: nobody may
// be told that there is no such key.
func TestDamagedKeyIsNotAbsent(t *testing.T) {
	for _, replicas := range []int{1, 2} {
		ps := paths(scratch(t), replicas)
		s := create(t, ps, small)
		b := new(Batch)
		for i := range 100 {
			b.Put(Nodes, fmt.Appendf(nil, "key %04d", i*2), make([]byte, 900))
		}
		if err := s.Commit(1, b); err != nil {
			t.Fatal(err)
		}
		damagedKeys := 0
		for i := range 100 {
			key := fmt.Appendf(nil, "key %04d", i*2)
			file := read(t, ps[0])
			var places []int
			for off := 2 * pageSize; off < len(file); off++ {
				if bytes.HasPrefix(file[off:], key) {
					places = append(places, off)
				}
			}
			for _, off := range places {
				bad := slices.Clone(file)
				bad[off+7]++ // still in order
				flipInPlace(t, ps[0], bad, off)
				v, err := s.View()
				if err != nil {
					t.Fatal(err)
				}
				value, err := v.Get(Nodes, key)
				switch {
				case replicas == 1 && errors.Is(err, format.ErrDamaged):
					damagedKeys++
				case err != nil || value == nil:
					t.Fatalf("%s with a damaged name at %d, %d replicas: %v, %v", key, off, replicas, value != nil, err)
				}
				err = v.Scan(Nodes, nil, func(k, value []byte) error { return nil })
				if err != nil && (replicas > 1 || !errors.Is(err, format.ErrDamaged)) {
					t.Fatalf("scan with %s damaged: %v", key, err)
				}
				v.Close()
				flipInPlace(t, ps[0], file, off)
				s.replicas[0].r.doubtful.Store(false) // ask it first again
			}
		}
		if replicas == 1 && damagedKeys < 100 {
			t.Errorf("%d damaged keys were noticed", damagedKeys)
		}
	}
}

// rightOrDamaged returns how many values are damaged, and an error for one that
// is wrong.
func (m model) rightOrDamaged(s *Store) (damaged int, err error) {
	v, err := s.View()
	if err != nil {
		return 0, err
	}
	defer v.Close()
	for k, want := range m {
		switch got, err := v.Get(k.bucket, []byte(k.key)); {
		case errors.Is(err, format.ErrDamaged):
			damaged++
		case err != nil:
			return damaged, err
		case got == nil || string(got) != want:
			return damaged, fmt.Errorf("%v %s is wrong", k.bucket, k.key)
		}
	}
	for _, b := range []Bucket{Nodes, Space, Volumes, Props} {
		seen := 0
		err := v.Scan(b, nil, func(k, value []byte) error {
			seen++
			if m[opKey{b, string(k)}] != string(value) {
				return fmt.Errorf("scan: %v %s is wrong", b, k)
			}
			return nil
		})
		if err != nil && !errors.Is(err, format.ErrDamaged) {
			return damaged, err
		}
		if err == nil && seen != m.count(b) {
			return damaged, fmt.Errorf("scan: %d entries of %d in %v", seen, m.count(b), b)
		}
	}
	return damaged, nil
}

func (m model) count(b Bucket) (n int) {
	for k := range m {
		if k.bucket == b {
			n++
		}
	}
	return n
}

// TestTwoDamagedReplicasMakeUpForEachOther damages both files, mostly in
// different places.
func TestTwoDamagedReplicasMakeUpForEachOther(t *testing.T) {
	ps := paths(scratch(t), 2)
	m := someCommits(t, ps)
	whole := read(t, ps[0])
	rng := rand.New(rand.NewPCG(10, 10))
	healed, refused := 0, 0
	for i := range 300 / slower {
		for _, p := range ps {
			bad, _ := metatest.Flip(rng, whole)
			write(t, p, bad)
		}
		s, err := Open(ps, testGUID, small)
		if err != nil {
			if !errors.Is(err, format.ErrDamaged) {
				t.Fatalf("flips %d: %v", i, err)
			}
			refused++
			continue
		}
		if s.Txg() != 20 { // a meta page is lost in one, and the other is broken
			if s.Replicas()[0].Problem == nil && s.Replicas()[1].Problem == nil {
				t.Fatalf("flips %d: txg %d and no word about it", i, s.Txg())
			}
			s.Close()
			continue
		}
		if _, err := m.rightOrDamaged(s); err != nil {
			t.Fatalf("flips %d: %v", i, err)
		}
		healed++
		s.Close()
	}
	t.Logf("%d times healed, %d times refused", healed, refused)
	if healed < 250/slower {
		t.Errorf("only %d of %d pairs were healed", healed, 300/slower)
	}
}
