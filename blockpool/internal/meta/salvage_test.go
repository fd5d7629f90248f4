package meta

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// wreck makes a replica of some commits and returns its path and last txg.
func wreck(t *testing.T) (path string, last uint64) {
	path = filepath.Join(t.TempDir(), "meta.db")
	s, err := Create([]string{path}, GUID{1, 2, 3}, Options{MaxSize: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for txg := uint64(1); txg <= 20; txg++ {
		var b Batch
		b.Put(Config, []byte("config"), fmt.Appendf(nil, "as of %d", txg))
		for i := range uint64(40) {
			b.Put(Nodes, fmt.Appendf(nil, "node%04d", i*txg%500), bytes.Repeat([]byte{byte(txg)}, 500))
		}
		if err := s.Commit(txg, &b); err != nil {
			t.Fatal(err)
		}
	}
	return path, 20
}

func openWreck(t *testing.T, path string) *Wreck {
	t.Helper()
	w, err := OpenWreck(path, GUID{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestAWreckShowsTheLastStateAndTheOneBefore(t *testing.T) {
	path, last := wreck(t)
	w := openWreck(t, path)
	if w.GUID() != (GUID{1, 2, 3}) {
		t.Errorf("guid %x", w.GUID())
	}
	states := w.States()
	if len(states) != 2 {
		t.Fatalf("%d states", len(states))
	}
	for i, s := range states {
		txg := last - uint64(i)
		if s.Txg != txg || !s.Whole {
			t.Errorf("state %d is of txg %d: %v", i, s.Txg, s.Err)
		}
		if v, err := s.Get(Config, []byte("config")); err != nil || string(v) != fmt.Sprintf("as of %d", txg) {
			t.Errorf("state %d: %q, %v", i, v, err)
		}
		n := 0
		err := s.Each(Nodes, func(_, value []byte, damage error) error {
			n++
			if damage != nil || value[0] > byte(txg) {
				t.Errorf("state %d: a value of %d, %v", i, value[0], damage)
			}
			return nil
		})
		if err != nil || n < 100 {
			t.Errorf("state %d: %d nodes, %v", i, n, err)
		}
	}
}

func TestEveryValueIsCarvedOutOfPagesWithoutStructure(t *testing.T) {
	path, last := wreck(t)
	want := map[string]string{}
	for _, b := range []Bucket{Nodes, Config} {
		err := openWreck(t, path).States()[0].Each(b, func(key, value []byte, _ error) error {
			want[string(key)] = string(value)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(file[:2*pageSize])
	broken := filepath.Join(t.TempDir(), "broken.db")
	if err := os.WriteFile(broken, file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open([]string{broken}, GUID{}, Options{ReadOnly: true}); err == nil {
		t.Fatal("it is not broken")
	}
	w := openWreck(t, broken)
	newest, got := map[string]uint64{}, map[string]string{}
	err = w.Carve(func(_ Bucket, key, value []byte, txg uint64) error {
		if txg > last {
			t.Errorf("a value of txg %d", txg)
		}
		if txg >= newest[string(key)] {
			newest[string(key)], got[string(key)] = txg, string(value)
		}
		return nil
	})
	if err != nil || len(w.States()) != 0 {
		t.Errorf("%d states, %v", len(w.States()), err)
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%q is not what it was", key)
		}
	}
}

// TestAWreckOfAnyBytesIsReadWithoutHarm flips bytes everywhere.
func TestAWreckOfAnyBytesIsReadWithoutHarm(t *testing.T) {
	path, _ := wreck(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 4))
		bad := bytes.Clone(good)
		for range 1 + rng.IntN(200) {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		}
		if seed%4 == 0 {
			bad = bad[:1+rng.IntN(len(bad))]
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		w := openWreck(t, path)
		stop := errors.New("stop")
		for _, s := range w.States() {
			for _, b := range Buckets() {
				err := s.Each(b, func(key, value []byte, damage error) error {
					// Get may not find the way there. What it finds is the same.
					if v, err := s.Get(b, key); damage == nil && err == nil && v != nil && !bytes.Equal(v, value) {
						t.Errorf("seed %d: two values of %v %q", seed, b, key)
					}
					return nil
				})
				if err != nil && !errors.Is(err, format.ErrDamaged) {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		}
		values := 0
		err := w.Carve(func(Bucket, []byte, []byte, uint64) error {
			if values++; values > 10 {
				return stop
			}
			return nil
		})
		if err != nil && !errors.Is(err, stop) {
			t.Errorf("seed %d: %v", seed, err)
		}
		w.Close()
	}
}
