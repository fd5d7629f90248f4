package btree_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/btree/memstore"
)

const million = 1 << 20

func key8(i uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), i) }

// value20 is about what a record of a volume takes.
var value20 = make([]byte, 20)

// filled returns a committed tree of n ascending keys.
func filled(tb testing.TB, n uint64) (*memstore.Store, *btree.Tree) {
	tb.Helper()
	s := memstore.New()
	t := btree.Open(s, btree.NoItems{}, 0)
	for i := range n {
		if _, err := t.Put(key8(i), value20); err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.Commit(); err != nil {
		tb.Fatal(err)
	}
	return s, t
}

// cpu reports the processor time per operation, which other work on the machine
// disturbs less than the time that passed.
func cpu(b *testing.B, perLoop int) func() {
	now := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	runtime.LockOSThread()
	begin := now()
	return func() {
		b.ReportMetric(float64(now()-begin)/float64(b.N*perLoop), "cpu-ns/item")
		runtime.UnlockOSThread()
	}
}

func BenchmarkPutAscending(b *testing.B) {
	s := memstore.New()
	t := btree.Open(s, btree.NoItems{}, 0)
	defer cpu(b, 1)()
	for i := uint64(0); b.Loop(); i++ {
		if _, err := t.Put(key8(i), value20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutRandomInAMillion(b *testing.B) {
	_, t := filled(b, million)
	rng := rand.New(rand.NewPCG(1, 1))
	defer cpu(b, 1)()
	for b.Loop() {
		if _, err := t.Put(key8(rng.Uint64N(million)), value20); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetInAMillion(b *testing.B) { benchmarkGet(b, million) }

// BenchmarkGetInTenThousand is what a lookup costs when the nodes are in the
// processor's cache.
func BenchmarkGetInTenThousand(b *testing.B) { benchmarkGet(b, 10_000) }

func benchmarkGet(b *testing.B, n uint64) {
	s, t := filled(b, n)
	v, rng := s.View(), rand.New(rand.NewPCG(1, 1))
	key := make([]byte, 8)
	b.ReportAllocs()
	defer cpu(b, 1)()
	for b.Loop() {
		binary.BigEndian.PutUint64(key, rng.Uint64N(n))
		if _, ok, err := btree.Get(v, t.Root(), key); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkScanOfAMillion(b *testing.B) {
	s, t := filled(b, million)
	v := s.View()
	defer cpu(b, million)()
	for b.Loop() {
		n := 0
		err := btree.Scan(v, t.Root(), nil, nil, func(_, _ []byte) error { n++; return nil })
		if n != million || err != nil {
			b.Fatal(n, err)
		}
	}
}
