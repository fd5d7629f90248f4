package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta/metatest"
)

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCrashShowsTheCommitOrTheOneBefore opens what crashes in the middle of
// commits leave, with one replica and with two.
func TestCrashShowsTheCommitOrTheOneBefore(t *testing.T) {
	commits, perCommit := 60, 50
	if testing.Short() {
		commits = 10
	}
	states := 0
	for _, n := range []int{1, 2} {
		dir, rng := scratch(t), rand.New(rand.NewPCG(5, uint64(n)))
		s := create(t, paths(dir, n), small)
		m := model{}
		crashed := paths(scratch(t), n)
		for txg := uint64(1); txg <= uint64(commits); txg++ {
			old := m.clone()
			b := m.script(rng, 1+rng.IntN(30))
			rec := make([]*metatest.Commit, n)
			commit := func() error { return s.Commit(txg, b) }
			for i, p := range paths(dir, n) {
				inner := commit
				commit = func() (err error) { rec[i], err = metatest.Record(p, inner); return err }
			}
			if err := commit(); err != nil {
				t.Fatal(err)
			}
			for range perCommit / n {
				// One replica is being written; those before it are, those
				// behind it are not.
				at, stage := rng.IntN(n), metatest.Stage(rng.IntN(3))
				for i, p := range crashed {
					switch {
					case i < at:
						write(t, p, rec[i].Crash(rng, metatest.Committed))
					case i == at:
						write(t, p, rec[i].Crash(rng, stage))
					default:
						write(t, p, rec[i].Before)
					}
				}
				checkCrash(t, crashed, txg, at > 0 || stage == metatest.Committed, at == 0 && stage == metatest.Data, old, m)
				states++
			}
		}
		s.Close()
	}
	t.Logf("%d crash states", states)
}

// checkCrash opens a state that a crash in txg left. The commit must be there,
// must not be there, or may be there.
func checkCrash(t *testing.T, ps []string, txg uint64, must, mustNot bool, old, new model) {
	t.Helper()
	s, err := Open(ps, testGUID, small)
	if err != nil {
		t.Fatalf("txg %d: %v", txg, err)
	}
	defer s.Close()
	want := old
	switch got := s.Txg(); {
	case got == txg && !mustNot:
		want = new
	case got != txg-1 || must:
		t.Fatalf("txg %d after a crash in %d, which was complete: %v, not begun: %v", got, txg, must, mustNot)
	}
	if err := want.compare(s); err != nil {
		t.Fatalf("txg %d: %v", txg, err)
	}
	if failed := s.Failed(); len(failed) > 0 {
		t.Fatalf("%v were not recopied", failed)
	}
}

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
	for i := range 500 {
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
	t.Logf("500 flips, %d of them in places that matter", rebuilt)
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
	for i := range 500 {
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
	t.Logf("500 flips, %d were met by a reader", heard)
}

// TestFlipsInTheOnlyReplicaAreRefused: each value is right or an error that
// says damage, whether the file was damaged before it was opened or after.
func TestFlipsInTheOnlyReplicaAreRefused(t *testing.T) {
	ps := paths(scratch(t), 1)
	m := someCommits(t, ps)
	whole := read(t, ps[0])
	rng := rand.New(rand.NewPCG(9, 9))
	refused, values := 0, 0
	for i := range 500 {
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
	t.Logf("500 flips: %d times the file was refused, %d times values of it", refused, values)
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
	for i := range 300 {
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
	if healed < 250 {
		t.Errorf("only %d of 300 pairs were healed", healed)
	}
}
