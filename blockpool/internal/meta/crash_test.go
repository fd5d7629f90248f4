package meta

import (
	"math/rand/v2"
	"os"
	"testing"

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
	commits, perCommit := 60, 50/slower
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
