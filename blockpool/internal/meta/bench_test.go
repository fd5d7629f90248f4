package meta

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func benchDir(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "lamina-meta-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func nodeKey(id int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

// filled returns a store of 20,000 nodes.
func filled(b *testing.B, replicas int) *Store {
	b.Helper()
	s := create(b, paths(benchDir(b), replicas), Options{MaxSize: 1 << 30})
	batch := new(Batch)
	for id := range 20000 {
		batch.Put(Nodes, nodeKey(id), make([]byte, 1900))
	}
	if err := s.Commit(1, batch); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkCommit compares commits with what bbolt takes alone for the same
// puts into a file with the same nodes. One after another, so that a disk whose
// speed varies does so for both.
func BenchmarkCommit(b *testing.B) {
	bare := bareFilled(b)
	one, two := filled(b, 1), filled(b, 2)
	for _, puts := range []int{0, 100, 2000} {
		b.Run(fmt.Sprintf("nodes=%d", puts), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			var took [3]time.Duration
			for b.Loop() {
				for i, commit := range []func(ids []int){
					func(ids []int) { bareUpdate(b, bare, ids) },
					func(ids []int) { nodeCommit(b, one, ids) },
					func(ids []int) { nodeCommit(b, two, ids) },
				} {
					ids := make([]int, puts)
					for j := range ids {
						ids[j] = rng.IntN(20000)
					}
					begin := time.Now()
					commit(ids)
					took[i] += time.Since(begin)
				}
			}
			for i, name := range []string{"bare-ms", "one-replica-ms", "two-replicas-ms"} {
				b.ReportMetric(took[i].Seconds()*1000/float64(b.N), name)
			}
		})
	}
}

func nodeCommit(b *testing.B, s *Store, ids []int) {
	batch := new(Batch)
	for _, id := range ids {
		batch.Put(Nodes, nodeKey(id), make([]byte, 1900))
	}
	if err := s.Commit(s.Txg()+1, batch); err != nil {
		b.Fatal(err)
	}
}

func bareFilled(b *testing.B) *bolt.DB {
	b.Helper()
	db, err := bolt.Open(paths(benchDir(b), 1)[0], 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, NoFreelistSync: true, InitialMmapSize: 1 << 30,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	ids := make([]int, 20000)
	for id := range ids {
		ids[id] = id
	}
	bareUpdate(b, db, ids)
	return db
}

// bareUpdate puts nodes and, as a commit does, one small value.
func bareUpdate(b *testing.B, db *bolt.DB, ids []int) {
	err := db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"nodes", "txg"} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		for _, id := range ids {
			if err := tx.Bucket([]byte("nodes")).Put(nodeKey(id), make([]byte, 1900+sealSize)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte("txg")).Put(recordKey, make([]byte, sealSize+recordSize))
	})
	if err != nil {
		b.Fatal(err)
	}
}

func BenchmarkGet(b *testing.B) {
	s := filled(b, 2)
	v, err := s.View()
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		if value, err := v.Get(Nodes, nodeKey(rng.IntN(20000))); err != nil || value == nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkView(b *testing.B) {
	s := filled(b, 2)
	for b.Loop() {
		v, err := s.View()
		if err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}

// BenchmarkOpen reads and checks 20,000 nodes.
func BenchmarkOpen(b *testing.B) {
	s := filled(b, 1)
	path := s.replicas[0].path
	s.Close()
	for b.Loop() {
		s, err := Open([]string{path}, testGUID, Options{MaxSize: 1 << 30})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// TestNodesTakeLittleMoreRoomThanTheirBytes watches how bbolt packs nodes of a
// B+tree: made with ascending ids, changed at random and grown.
func TestNodesTakeLittleMoreRoomThanTheirBytes(t *testing.T) {
	s := create(t, paths(scratch(t), 1), Options{MaxSize: 256 << 20, GrowStep: 1 << 20})
	rng := rand.New(rand.NewPCG(17, 17))
	sizes := make(map[int]int)
	for txg := uint64(1); txg <= 60; txg++ {
		b := new(Batch)
		for range 100 {
			id := len(sizes)
			sizes[id] = 1000 + rng.IntN(1000)
			b.Put(Nodes, nodeKey(id), make([]byte, sizes[id]))
			id = rng.IntN(len(sizes))
			sizes[id] = min(2000, sizes[id]+rng.IntN(200))
			b.Put(Nodes, nodeKey(id), make([]byte, sizes[id]))
		}
		if err := s.Commit(txg, b); err != nil {
			t.Fatal(err)
		}
	}
	bytes := 0
	for _, n := range sizes {
		bytes += n
	}
	st, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	ratio := float64(st.Largest.Used) / float64(bytes)
	t.Logf("%d nodes of %d bytes take %.2f times as much", len(sizes), bytes, ratio)
	if ratio > 1.5 {
		t.Errorf("%d bytes of nodes take %d", bytes, st.Largest.Used)
	}
}

// TestViewsAndCommitsRunSideBySide: each view shows one commit, whole.
func TestViewsAndCommitsRunSideBySide(t *testing.T) {
	s := create(t, paths(scratch(t), 2), small)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				v, err := s.View()
				if err != nil {
					t.Error(err)
					return
				}
				for _, key := range []string{"a", "b", "c"} {
					value, err := v.Get(Volumes, []byte(key))
					if want := fmt.Sprint(v.Txg()); err != nil || v.Txg() > 0 && string(value) != want {
						t.Errorf("%s in txg %s: %q, %v", key, want, value, err)
					}
				}
				v.Close()
			}
		})
	}
	for txg := uint64(1); txg <= 300; txg++ {
		b := new(Batch)
		for _, key := range []string{"a", "b", "c"} {
			b.Put(Volumes, []byte(key), fmt.Append(nil, txg))
		}
		if err := s.Commit(txg, b); err != nil {
			t.Fatal(err)
		}
		if txg%50 == 0 {
			if err := s.Compact(s.Replicas()[txg/50%2].Path); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
}
