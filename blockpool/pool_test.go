package blockpool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

var ctx = context.Background()

// A bench is a pool on devices in memory, its metadata in real files.
type bench struct {
	testing.TB
	journal *memdev.Journal
	dir     string
	opts    OpenOptions
	worked  func() // called after each step of work; may be nil
	*Pool
}

// newBench makes and opens a pool of n devices of that size.
func newBench(t testing.TB, c Config, n int, size int64) *bench {
	t.Helper()
	b := &bench{TB: t, journal: memdev.NewUnrecorded(), dir: tempDir(t)}
	if c.Name == "" {
		c.Name = "tank"
	}
	o := CreateOptions{Config: c, Storage: b.journal, Metadata: []string{ReplicaName(b.dir, 0)}}
	if c.MetadataProfile == Mirror {
		o.Metadata = append(o.Metadata, ReplicaName(b.dir, 1))
	}
	for i := range n {
		o.Devices = append(o.Devices, DeviceSpec{Path: filepath.Join(b.dir, fmt.Sprintf("disk%d", i)), Size: size})
	}
	if err := Create(o); err != nil {
		t.Fatal(err)
	}
	b.opts = OpenOptions{Storage: b.journal, Tunables: Tunables{TxgInterval: time.Hour}}
	b.open()
	t.Cleanup(func() { b.Abandon() })
	return b
}

// tempDir returns a directory in memory where there is one: what a sync costs is
// not what these tests are about.
func tempDir(t testing.TB) string {
	if dir, err := os.MkdirTemp("/dev/shm", "lamina"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

func (b *bench) open() {
	b.Helper()
	p, err := Open(b.dir, b.opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Pool = p
}

// crash ends the pool as kill -9 would, and opens it again.
func (b *bench) crash() {
	b.Helper()
	b.Abandon()
	b.open()
}

// reopen closes and opens the pool.
func (b *bench) reopen() {
	b.Helper()
	b.must(b.Close())
	b.open()
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) volume(name string) *Volume {
	b.Helper()
	v, err := b.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

func (b *bench) Open(name string) (*Volume, error) { return b.Pool.Open(name) }

// content reads all of a volume.
func (b *bench) content(name string) []byte {
	b.Helper()
	v := b.volume(name)
	defer v.Close()
	p := make([]byte, v.Size())
	if _, err := v.ReadAt(p, 0); err != nil && err != io.EOF {
		b.Fatal(err)
	}
	return p
}

func fill(n int, seed uint64) []byte {
	p := make([]byte, n+8)
	rng := rand.New(rand.NewPCG(seed, 7))
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	return p[:n]
}

func TestWhatIsWrittenIsReadAlsoAfterClosingAndAfterAKill(t *testing.T) {
	for _, profile := range []struct {
		Profile
		devices int
	}{{Single, 1}, {Single, 3}, {Mirror, 3}, {RaidZ1, 4}, {RaidZ2, 5}} {
		for _, recordSize := range []int64{4 << 10, 16 << 10, 128 << 10} {
			t.Run(fmt.Sprintf("%v-%d-%dK", profile.Profile, profile.devices, recordSize>>10), func(t *testing.T) {
				b := newBench(t, Config{DataProfile: profile.Profile}, profile.devices, 64<<20)
				b.must(b.CreateVolume(ctx, "vol", 4<<20, VolumeOptions{RecordSize: recordSize}))
				want := make([]byte, 4<<20)
				rng := rand.New(rand.NewPCG(1, 2))
				v := b.volume("vol")
				for i := range 60 {
					n := 1 + rng.IntN(300<<10)
					off := rng.IntN(len(want) - n)
					switch rng.IntN(5) {
					case 0:
						b.must(v.Zero(ctx, int64(off), int64(n)))
						clear(want[off : off+n])
					default:
						p := fill(n, uint64(i))
						if _, err := v.WriteAt(p, int64(off)); err != nil {
							t.Fatal(err)
						}
						copy(want[off:], p)
					}
					switch rng.IntN(12) {
					case 0:
						b.must(b.Sync(ctx))
					case 1:
						b.must(v.Flush(ctx))
					case 2:
						v.Close()
						b.crash()
						v = b.volume("vol")
					}
					got := make([]byte, n)
					if _, err := v.ReadAt(got, int64(off)); err != nil && err != io.EOF || !bytes.Equal(got, want[off:off+n]) {
						t.Fatalf("step %d: %d bytes at %d differ, %v", i, n, off, err)
					}
				}
				v.Close()
				if !bytes.Equal(b.content("vol"), want) {
					t.Fatal("content differs before closing")
				}
				b.reopen()
				if !bytes.Equal(b.content("vol"), want) {
					t.Fatal("content differs after closing")
				}
			})
		}
	}
}

func TestSnapshotsAndClonesStayAsTheyWere(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	b.must(b.CreateVolume(ctx, "base", 1<<20, VolumeOptions{}))
	v := b.volume("base")
	defer v.Close()
	want := map[string][]byte{}
	for i := range 20 {
		if _, err := v.WriteAt(fill(50_000, uint64(i)), int64(i*40_000)); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("base@s%d", i)
		b.must(b.Snapshot(ctx, "base", name))
		want[name] = b.content("base")
		clone := fmt.Sprintf("clone/c%d", i)
		b.must(b.Clone(ctx, name, clone))
		w := b.volume(clone)
		if _, err := w.WriteAt(fill(1000, uint64(100+i)), 500_000); err != nil {
			t.Fatal(err)
		}
		w.Close()
		want[clone] = b.content(clone)
	}
	b.must(b.Destroy(ctx, "base@s3"))
	b.must(b.Destroy(ctx, "clone/c5"))
	delete(want, "base@s3")
	delete(want, "clone/c5")
	for name, p := range want {
		if !bytes.Equal(b.content(name), p) {
			t.Errorf("%s has changed", name)
		}
	}
	if _, err := b.Open("base@s3"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a destroyed snapshot: %v", err)
	}
	s := b.volume("base@s1")
	defer s.Close()
	if _, err := s.WriteAt([]byte{1}, 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write to a snapshot: %v", err)
	}
}

func TestDestroyingEverythingFreesEverything(t *testing.T) {
	b := newBench(t, Config{}, 1, 128<<20)
	free := b.space.available(0)
	b.must(b.CreateVolume(ctx, "a", 8<<20, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("a")
	for i := range 10 {
		if _, err := v.WriteAt(fill(1<<20, uint64(i)), int64(i)<<19); err != nil {
			t.Fatal(err)
		}
		b.must(b.Snapshot(ctx, "a", fmt.Sprintf("a@%d", i)))
		b.must(b.Clone(ctx, "a", fmt.Sprintf("c%d", i)))
	}
	v.Close()
	for _, i := range b.Volumes() {
		b.must(b.Destroy(ctx, i.Name))
	}
	for b.dead.pending() {
		b.must(b.Sync(ctx))
	}
	b.must(b.Sync(ctx))
	if got := b.space.available(0); got != free {
		t.Errorf("%d sectors are free, %d were before", got, free)
	}
	if used := b.nodeCounts; used == nil {
		t.Error("no counts")
	}
}

func TestWritesStopBeforeTheMetadataIsFullAndDeletesDoNot(t *testing.T) {
	if testing.Short() {
		t.Skip("fills 16 MiB of metadata: not in short runs, such as those with the race detector")
	}
	b := newBench(t, Config{MetadataSize: 16 << 20}, 1, 8<<30)
	b.must(b.CreateVolume(ctx, "v", 4<<30, VolumeOptions{RecordSize: 4 << 10}))
	v := b.volume("v")
	defer v.Close()
	// Records far apart: each change costs a leaf of its own once they are shared.
	var err error
	n := 0
	for i := int64(0); err == nil && i < 1<<20; i++ {
		if i%5000 == 0 {
			if err = b.Snapshot(ctx, "v", fmt.Sprintf("v@%d", i)); err != nil {
				break
			}
		}
		_, err = v.WriteAt([]byte{1}, i*7919%(1<<20)*4096)
		n++
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("after %d records: %v", n, err)
	}
	if b.readOnly() != nil {
		t.Fatalf("the pool has stopped: %v", b.readOnly())
	}
	for _, i := range b.Volumes() {
		if i.Kind == KindSnapshot.String() {
			b.must(b.Destroy(ctx, i.Name))
		}
	}
	b.must(v.Discard(ctx, 0, v.Size()))
	for range 100 {
		b.must(b.Sync(ctx))
	}
	if _, err := v.WriteAt([]byte{1}, 0); err != nil {
		t.Errorf("after everything was deleted: %v", err)
	}
}

func TestAFullPoolRefusesWritesAndTakesThemAgain(t *testing.T) {
	for _, profile := range []struct {
		Profile
		devices int
	}{{Single, 2}, {Mirror, 2}, {RaidZ1, 3}} {
		t.Run(profile.String(), func(t *testing.T) {
			b := newBench(t, Config{DataProfile: profile.Profile}, profile.devices, 64<<20)
			b.must(b.CreateVolume(ctx, "v", 1<<30, VolumeOptions{}))
			v := b.volume("v")
			defer v.Close()
			var err error
			end := int64(0)
			for p := fill(1<<20, 1); err == nil; end += int64(len(p)) {
				_, err = v.WriteAt(p, end)
			}
			if !errors.Is(err, ErrNoSpace) || end < 20<<20 {
				t.Fatalf("after %d bytes: %v", end, err)
			}
			b.must(v.Flush(ctx))
			b.must(v.Discard(ctx, 0, 10<<20))
			if _, err := v.WriteAt(fill(5<<20, 2), 0); err != nil {
				t.Errorf("after a discard: %v", err)
			}
			b.must(b.Resize(ctx, "v", 4<<10))
			if _, err := v.WriteAt([]byte{1}, 4<<10); !errors.Is(err, ErrInvalid) {
				t.Errorf("beyond the end: %v", err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	b := newBench(t, Config{}, 1, 256<<20)
	write := func(name string, off, n int) error {
		v := b.volume(name)
		defer v.Close()
		_, err := v.WriteAt(fill(n, uint64(off)), int64(off))
		return err
	}
	b.must(b.CreateVolume(ctx, "q", 64<<20, VolumeOptions{Refquota: 4 << 20}))
	b.must(write("q", 0, 4<<20))
	if err := write("q", 8<<20, 1<<20); !errors.Is(err, ErrQuota) {
		t.Errorf("beyond refquota: %v", err)
	}
	b.must(write("q", 1<<20, 2<<20))
	b.must(b.SetLimits(ctx, "q", 6<<20, 0, -1))
	b.must(b.Snapshot(ctx, "q", "q@s"))
	b.must(b.Sync(ctx))
	if err := write("q", 0, 4<<20); !errors.Is(err, ErrQuota) {
		t.Errorf("beyond quota, over a snapshot: %v", err)
	}
	b.must(b.Destroy(ctx, "q@s"))
	for range 3 {
		b.must(b.Sync(ctx))
	}
	b.must(write("q", 0, 4<<20))
	b.must(b.CreateVolume(ctx, "r", 200<<20, VolumeOptions{Reservation: 100 << 20}))
	if err := write("r", 0, 90<<20); err != nil {
		t.Error(err)
	}
	b.must(b.CreateVolume(ctx, "s", 200<<20, VolumeOptions{}))
	err := write("s", 0, 190<<20)
	if !errors.Is(err, ErrNoSpace) {
		t.Errorf("into what is reserved: %v", err)
	}
	if err := write("r", 90<<20, 5<<20); err != nil {
		t.Errorf("what was reserved: %v", err)
	}
}

// reopenWith opens the pool anew with other tunables.
func (b *bench) reopenWith(t Tunables) {
	b.Helper()
	b.must(b.Close())
	b.opts.Tunables = t
	b.open()
}
