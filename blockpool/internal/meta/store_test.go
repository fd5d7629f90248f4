package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

var testGUID = GUID{1, 2, 3}

// scratch returns a directory in memory, where syncs are cheap.
func scratch(t testing.TB) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "lamina-meta-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

func paths(dir string, n int) []string {
	var ps []string
	for i := range n {
		ps = append(ps, filepath.Join(dir, fmt.Sprintf("meta%d", i)))
	}
	return ps
}

var small = Options{MaxSize: 64 << 20, GrowStep: 64 << 10}

func create(t testing.TB, ps []string, o Options) *Store {
	t.Helper()
	s, err := Create(ps, testGUID, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func reopen(t testing.TB, ps []string, o Options) *Store {
	t.Helper()
	s, err := Open(ps, testGUID, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A model is what a store must hold.
type model map[opKey]string

// script makes the batch of one txg out of random changes, and applies it to
// the model.
func (m model) script(rng *rand.Rand, changes int) *Batch {
	buckets := []Bucket{Nodes, Nodes, Nodes, Space, Volumes, Props}
	b := new(Batch)
	for range changes {
		bucket := buckets[rng.IntN(len(buckets))]
		key := fmt.Appendf(nil, "%08d", rng.IntN(3000))
		if rng.IntN(4) == 0 {
			b.Delete(bucket, key)
			delete(m, opKey{bucket, string(key)})
			continue
		}
		value := make([]byte, rng.IntN(200))
		if bucket == Nodes {
			value = make([]byte, 500+rng.IntN(1500))
		}
		for i := range value {
			value[i] = byte(rng.Uint32())
		}
		b.Put(bucket, key, value)
		m[opKey{bucket, string(key)}] = string(value)
	}
	return b
}

func (m model) clone() model {
	c := make(model, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// check compares a store with the model, by scans and by look-ups.
func (m model) check(t testing.TB, s *Store) {
	t.Helper()
	if err := m.compare(s); err != nil {
		t.Fatal(err)
	}
}

func (m model) compare(s *Store) error {
	v, err := s.View()
	if err != nil {
		return err
	}
	defer v.Close()
	seen := 0
	for _, b := range Buckets() {
		if b == Txg {
			continue
		}
		last := ""
		err := v.Scan(b, nil, func(k, value []byte) error {
			seen++
			if want, ok := m[opKey{b, string(k)}]; !ok || want != string(value) || last >= string(k) {
				return fmt.Errorf("scan: %v %s: wrong value, order or presence", b, k)
			}
			last = string(k)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if seen != len(m) {
		return fmt.Errorf("scan: %d of %d entries", seen, len(m))
	}
	for k, want := range m {
		got, err := v.Get(k.bucket, []byte(k.key))
		if err != nil {
			return err
		}
		if got == nil || string(got) != want {
			return fmt.Errorf("get: %v %s: wrong value", k.bucket, k.key)
		}
	}
	for range 100 {
		key := fmt.Appendf(nil, "%08d", rand.IntN(3000))
		_, there := m[opKey{Space, string(key)}]
		if got, err := v.Get(Space, key); err != nil || (got != nil) != there {
			return fmt.Errorf("get: %v %s: %v, %v", Space, key, got != nil, err)
		}
	}
	return nil
}

func TestCommittedBatchesComeBackInEveryReplica(t *testing.T) {
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			ps := paths(scratch(t), n)
			s := create(t, ps, small)
			m, rng := model{}, rand.New(rand.NewPCG(1, uint64(n)))
			for txg := uint64(1); txg <= 60; txg++ {
				if err := s.Commit(txg*3, m.script(rng, 1+rng.IntN(200))); err != nil {
					t.Fatal(err)
				}
				if txg%10 == 0 {
					m.check(t, s)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, p := range ps { // each alone
				s := reopen(t, []string{p}, small)
				if s.Txg() != 180 {
					t.Fatalf("txg %d", s.Txg())
				}
				m.check(t, s)
				for _, r := range s.Replicas() {
					if r.Problem != nil {
						t.Error(r.Problem)
					}
				}
				s.Close()
			}
		})
	}
}

func TestViewShowsItsCommitWhateverComesLater(t *testing.T) {
	s := create(t, paths(scratch(t), 2), small)
	m, rng := model{}, rand.New(rand.NewPCG(2, 2))
	if err := s.Commit(1, m.script(rng, 500)); err != nil {
		t.Fatal(err)
	}
	old := m.clone()
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for txg := uint64(2); txg < 40; txg++ {
		if err := s.Commit(txg, m.script(rng, 200)); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for _, b := range []Bucket{Nodes, Space, Volumes, Props} {
		err := v.Scan(b, nil, func(k, value []byte) error {
			n++
			if old[opKey{b, string(k)}] != string(value) {
				return fmt.Errorf("%v %s has changed", b, k)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n != len(old) || v.Txg() != 1 {
		t.Errorf("%d of %d entries at txg %d", n, len(old), v.Txg())
	}
	m.check(t, s)
}

func TestSecondProcessIsToldThatThePoolIsInUse(t *testing.T) {
	ps := paths(scratch(t), 2)
	create(t, ps, small)
	if _, err := Open(ps, testGUID, Options{MaxSize: 64 << 20, LockTimeout: 1}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}
