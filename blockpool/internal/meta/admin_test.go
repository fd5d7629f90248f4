package meta

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// TestPoolLivesOnWhenAReplicaTakesNoMoreWrites closes bbolt's descriptor, so
// that every write of the replica fails.
func TestPoolLivesOnWhenAReplicaTakesNoMoreWrites(t *testing.T) {
	for which := range 2 {
		ps := paths(scratch(t), 2)
		o, events := small, []Event(nil)
		o.Event = func(e Event) { events = append(events, e) }
		s := create(t, ps, o)
		m, rng := model{}, rand.New(rand.NewPCG(11, 11))
		if err := s.Commit(1, m.script(rng, 100)); err != nil {
			t.Fatal(err)
		}
		s.replicas[which].r.file.Close()
		for txg := uint64(2); txg < 10; txg++ {
			if err := s.Commit(txg, m.script(rng, 100)); err != nil {
				t.Fatal(err)
			}
			m.check(t, s)
			if got := s.Failed(); !slices.Equal(got, ps[which:which+1]) {
				t.Fatalf("failed: %v", got)
			}
		}
		if len(events) != 1 || events[0].Kind != Failed || events[0].Path != ps[which] {
			t.Errorf("events: %v", events)
		}
		if err := s.Recopy(ps[which]); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(10, m.script(rng, 100)); err != nil || len(s.Failed()) != 0 {
			t.Fatalf("%v, failed: %v", err, s.Failed())
		}
		s.Close()
		s = reopen(t, ps[which:which+1], small)
		m.check(t, s)
	}
}

func TestStoreIsForReadingWhenNoReplicaTakesWrites(t *testing.T) {
	ps := paths(scratch(t), 1)
	s := create(t, ps, small)
	m, rng := model{}, rand.New(rand.NewPCG(12, 12))
	if err := s.Commit(1, m.script(rng, 100)); err != nil {
		t.Fatal(err)
	}
	s.replicas[0].r.file.Close()
	for txg := uint64(2); txg < 4; txg++ {
		if err := s.Commit(txg, m.clone().script(rng, 10)); !errors.Is(err, ErrNoReplica) {
			t.Fatalf("got %v", err)
		}
	}
	m.check(t, s)
	if err := s.Recopy(ps[0]); !errors.Is(err, ErrNoReplica) {
		t.Errorf("got %v", err)
	}
}

// TestPoolLivesOnWhenADeviceIsFull has one replica on a device of 2 MiB.
func TestPoolLivesOnWhenADeviceIsFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	ps := []string{filepath.Join(dir, "meta"), filepath.Join(scratch(t), "meta")}
	s := create(t, ps, small)
	m, rng := model{}, rand.New(rand.NewPCG(13, 13))
	txg := uint64(1)
	for ; len(s.Failed()) == 0 && txg < 100; txg++ {
		if err := s.Commit(txg, m.script(rng, 200)); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Failed(); !slices.Equal(got, ps[:1]) {
		t.Fatalf("failed: %v", got)
	}
	m.check(t, s)
	if err := s.Commit(txg, m.script(rng, 200)); err != nil {
		t.Fatal(err)
	}
	m.check(t, s)
	s.Close()
}

func TestFullFileRefusesTheCommitAndStaysUsable(t *testing.T) {
	o := Options{MaxSize: 2 << 20, GrowStep: 64 << 10}
	ps := paths(scratch(t), 2)
	s := create(t, ps, o)
	m := model{}
	value := make([]byte, 1500)
	var err error
	txg, n := uint64(1), 0
	for ; err == nil; txg++ {
		next, b := m.clone(), new(Batch)
		for range 20 {
			key := fmt.Sprintf("%06d", n)
			b.Put(Nodes, []byte(key), value)
			next[opKey{Nodes, key}] = string(value)
			n++
		}
		if err = s.Commit(txg, b); err == nil {
			m = next
		}
	}
	if !errors.Is(err, ErrFull) || len(s.Failed()) != 0 {
		t.Fatalf("%v, failed: %v", err, s.Failed())
	}
	st, err := s.Stats()
	if err != nil || st.Room() > 200<<10 {
		t.Errorf("room for %d bytes, %v", st.Room(), err)
	}
	m.check(t, s)
	b := new(Batch)
	for k := range m {
		if k.key > "000300" {
			b.Delete(k.bucket, []byte(k.key))
			delete(m, k)
		}
	}
	if err := s.Commit(txg, b); err != nil {
		t.Fatal(err)
	}
	m.check(t, s)
}

func TestCompactedReplicaIsSmallerAndOpenViewsGoOn(t *testing.T) {
	ps := paths(scratch(t), 2)
	s := create(t, ps, small)
	m, rng := model{}, rand.New(rand.NewPCG(14, 14))
	for txg := uint64(1); txg <= 20; txg++ {
		if err := s.Commit(txg, m.script(rng, 400)); err != nil {
			t.Fatal(err)
		}
	}
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	old := m.clone()
	b := new(Batch)
	for k := range m {
		if rng.IntN(5) != 0 {
			b.Delete(k.bucket, []byte(k.key))
			delete(m, k)
		}
	}
	if err := s.Commit(21, b); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(ps[0])
	for _, p := range ps {
		if err := s.Compact(p); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := os.Stat(ps[0])
	if after.Size() > before.Size()/2 {
		t.Errorf("%d bytes before, %d after", before.Size(), after.Size())
	}
	for k, want := range old {
		if got, err := v.Get(k.bucket, []byte(k.key)); err != nil || string(got) != want {
			t.Fatalf("%v %s in an old view: %v", k.bucket, k.key, err)
		}
	}
	m.check(t, s)
	if err := s.Commit(22, m.script(rng, 100)); err != nil {
		t.Fatal(err)
	}
	m.check(t, s)
}

func TestReplicasAreAddedAndRemovedWhileInUse(t *testing.T) {
	ps := paths(scratch(t), 3)
	s := create(t, ps[:1], small)
	m, rng := model{}, rand.New(rand.NewPCG(15, 15))
	commit := func(txg uint64) {
		t.Helper()
		if err := s.Commit(txg, m.script(rng, 100)); err != nil {
			t.Fatal(err)
		}
	}
	commit(1)
	if err := s.RemoveReplica(ps[0]); err == nil {
		t.Error("the last replica was removed")
	}
	for i, p := range ps[1:] {
		if err := s.AddReplica(p); err != nil {
			t.Fatal(err)
		}
		commit(uint64(2 + i))
	}
	if err := s.AddReplica(ps[1]); err == nil {
		t.Error("a replica was added twice")
	}
	if err := s.RemoveReplica(ps[0]); err != nil {
		t.Fatal(err)
	}
	commit(10)
	s.Close()
	if got := reopen(t, ps[:1], small).Txg(); got != 3 {
		t.Errorf("the removed replica has txg %d", got)
	}
	s = reopen(t, ps[1:], small)
	m.check(t, s)
}

func TestLaggingReplicaIsRecopiedWhenOpened(t *testing.T) {
	ps := paths(scratch(t), 2)
	s := create(t, ps, small)
	m, rng := model{}, rand.New(rand.NewPCG(16, 16))
	if err := s.Commit(1, m.script(rng, 100)); err != nil {
		t.Fatal(err)
	}
	old := read(t, ps[0])
	if err := s.Commit(2, m.script(rng, 100)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	write(t, ps[0], old)
	ro := small
	ro.ReadOnly = true
	s = reopen(t, ps, ro) // changes nothing
	m.check(t, s)
	if err := s.Commit(3, new(Batch)); !errors.Is(err, ErrReadOnly) {
		t.Errorf("commit when open for reading: %v", err)
	}
	s.Close()
	s = reopen(t, ps, small)
	if r := s.Replicas()[0]; r.Found != 1 || !r.Rebuilt || r.Err != nil {
		t.Errorf("%+v", r)
	}
	m.check(t, s)
}

func TestReplicasThatWentDifferentWaysAreRefused(t *testing.T) {
	ps := paths(scratch(t), 2)
	create(t, ps, small).Close()
	for i, p := range ps {
		s := reopen(t, []string{p}, small)
		b := new(Batch)
		b.Put(Volumes, []byte("v"), []byte{byte(i)})
		if err := s.Commit(1, b); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if _, err := Open(ps, testGUID, small); !errors.Is(err, ErrDiverged) {
		t.Errorf("got %v", err)
	}
	if s := reopen(t, ps[1:], small); s.Txg() != 1 {
		t.Errorf("txg %d", s.Txg())
	}
}

func TestMissingReplicaIsNotCreatedButNamed(t *testing.T) {
	ps := paths(scratch(t), 2)
	create(t, ps[:1], small).Close()
	s := reopen(t, ps, small)
	if got := s.Failed(); !slices.Equal(got, ps[1:]) {
		t.Errorf("failed: %v", got)
	}
	if _, err := os.Stat(ps[1]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	if err := s.Recopy(ps[1]); err != nil || len(s.Failed()) != 0 {
		t.Errorf("recopy: %v, failed: %v", err, s.Failed())
	}
}

func TestFilesThatAreNoMetadataOfThePoolAreRefused(t *testing.T) {
	ps := paths(scratch(t), 2)
	create(t, ps[:1], small).Close()
	if _, err := Open(ps[:1], GUID{99}, small); !errors.Is(err, ErrForeign) {
		t.Errorf("another pool: %v", err)
	}
	whole := read(t, ps[0])
	for name, b := range map[string][]byte{
		"empty": {}, "short": whole[:3000], "cut": whole[:len(whole)-4096], "text": []byte("hello"), "zeros": make([]byte, len(whole)),
	} {
		write(t, ps[1], b)
		if _, err := Open(ps[1:], testGUID, small); !errors.Is(err, format.ErrDamaged) && name != "cut" {
			t.Errorf("%s: %v", name, err)
		}
		s, err := Open(ps, testGUID, small)
		if err != nil {
			t.Fatalf("%s beside a good one: %v", name, err)
		}
		s.Close()
	}
	if _, err := Create(ps[:1], testGUID, small); !errors.Is(err, os.ErrExist) {
		t.Errorf("create over a pool: %v", err)
	}
}

func TestBatchIsCheckedBeforeAnythingIsWritten(t *testing.T) {
	s := create(t, paths(scratch(t), 1), small)
	for name, spoil := range map[string]func(*Batch){
		"no bucket":     func(b *Batch) { b.Put(200, []byte("k"), nil) },
		"bucket txg":    func(b *Batch) { b.Put(Txg, []byte("k"), nil) },
		"no key":        func(b *Batch) { b.Delete(Nodes, nil) },
		"long key":      func(b *Batch) { b.Put(Nodes, make([]byte, MaxKey+1), nil) },
		"endless value": func(b *Batch) { b.Put(Nodes, []byte("k"), make([]byte, MaxValue+1)) },
	} {
		b := new(Batch)
		b.Put(Nodes, []byte("good"), []byte("value"))
		spoil(b)
		if err := s.Commit(1, b); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	if s.Txg() != 0 || len(s.Failed()) != 0 {
		t.Errorf("txg %d, failed: %v", s.Txg(), s.Failed())
	}
	b := new(Batch)
	b.Put(Nodes, []byte("k"), []byte("1"))
	b.Delete(Nodes, []byte("k"))
	b.Put(Nodes, []byte("k"), []byte("22"))
	if b.Len() != 1 || b.Bytes() != 1+sealSize+2 {
		t.Errorf("%d changes of %d bytes", b.Len(), b.Bytes())
	}
}

func FuzzCheckFile(f *testing.F) {
	dir := f.TempDir()
	s, err := Create(paths(dir, 1), testGUID, small)
	if err != nil {
		f.Fatal(err)
	}
	b := new(Batch)
	for i := range 40 {
		b.Put(Nodes, fmt.Appendf(nil, "%d", i), make([]byte, 300))
	}
	if err := s.Commit(1, b); err != nil {
		f.Fatal(err)
	}
	s.Close()
	whole := read(f, paths(dir, 1)[0])
	whole = whole[:min(len(whole), 20*pageSize)]
	f.Add(uint16(0), []byte{1}, uint64(3))
	f.Add(uint16(3), make([]byte, 40), uint64(0))
	f.Fuzz(func(t *testing.T, where uint16, bytes []byte, root uint64) {
		file := slices.Clone(whole)
		copy(file[int(where)*16%len(file):], bytes)
		found := checkFile(file, testGUID)
		if err := found.err(); err != nil && !errors.Is(err, format.ErrDamaged) {
			t.Fatalf("%v does not say damage", err)
		}
		// Any page as a root: found or damaged, but it ends.
		tr := tree{file: file, limit: uint64(len(file) / pageSize), root: root % 64}
		if _, err := tr.lookup(Nodes, []byte("7")); err != nil && !errors.Is(err, format.ErrDamaged) {
			t.Fatal(err)
		}
	})
}
