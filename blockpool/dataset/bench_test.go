package dataset_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
)

// poolMount mounts a dataset of a pool in memory.
func poolMount(b testing.TB) *mount {
	dataset.KeepInodes(dataset.KeptInodes)
	b.Cleanup(func() { dataset.KeepInodes(0) })
	w := newPoolWorld(b, 128<<10, blockpool.CompressionOff)
	fs, err := dataset.New(w.open(), dataset.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { fs.Close() })
	return &mount{TB: b, FS: fs}
}

func BenchmarkCreateAndUnlink(b *testing.B) {
	m := poolMount(b)
	p := m.Root()
	i := 0
	for b.Loop() {
		name := fmt.Sprint("file", i)
		m.must(m.made(m.Create(p, name, 0o600, me)))
		if i++; i > 1000 {
			m.must(m.Unlink(p, fmt.Sprint("file", i-1000)))
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	m := poolMount(b)
	const files = 10000
	for i := range files {
		m.must(m.create(fmt.Sprint("file", i), ""))
	}
	i := 0
	for b.Loop() {
		id, _, err := m.LookupID(m.Root(), fmt.Sprint("file", i%files))
		m.must(err)
		m.ForgetID(id, 1)
		i++
	}
}

func BenchmarkLookupOfNothing(b *testing.B) {
	m := poolMount(b)
	for i := range 10000 {
		m.must(m.create(fmt.Sprint("file", i), ""))
	}
	for b.Loop() {
		if _, _, err := m.LookupID(m.Root(), "nothing"); err != unix.ENOENT {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadDirOf10000(b *testing.B) {
	m := poolMount(b)
	for i := range 10000 {
		m.must(m.create(fmt.Sprint("file", i), ""))
	}
	for b.Loop() {
		m.must(m.ReadDir(m.Root(), 0, func(dataset.Listed) bool { return true }))
	}
}

func benchmarkWrite(b *testing.B, size int, at func(i int) int64) {
	m := poolMount(b)
	m.must(m.create("f", ""))
	n := m.at("f")
	defer m.Forget(n, 1)
	p := []byte(text(size, 1))
	b.SetBytes(int64(size))
	i := 0
	for b.Loop() {
		_, err := m.Write(n, p, at(i), false)
		m.must(err)
		i++
	}
}

func BenchmarkAppend4K(b *testing.B) {
	benchmarkWrite(b, 4096, func(i int) int64 { return int64(i%20000) * 4096 })
}

func BenchmarkRandomWrite4K(b *testing.B) {
	benchmarkWrite(b, 4096, func(i int) int64 { return int64(i*7919%20000) * 4096 })
}

func BenchmarkWrite1M(b *testing.B) {
	benchmarkWrite(b, 1<<20, func(i int) int64 { return int64(i%64) << 20 })
}

// BenchmarkDiffOf10Among100000 compares two snapshots of a tree of 100,000 files, of
// which 10 were changed.
func BenchmarkDiffOf10Among100000(b *testing.B) {
	w := newPoolWorld(b, 128<<10, blockpool.CompressionOff)
	fs, err := dataset.New(w.open(), dataset.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer fs.Close()
	m := &mount{TB: b, FS: fs}
	for d := range 100 {
		m.must(m.mkdir(fmt.Sprint(d)))
		for f := range 1000 {
			m.must(m.create(fmt.Sprint(d, "/", f), ""))
		}
	}
	old := w.snapshot()()
	defer old.Close()
	for i := range 10 {
		m.must(m.write(fmt.Sprint(i*7, "/", i*83), 0, "changed"))
	}
	now := w.snapshot()()
	defer now.Close()
	for b.Loop() {
		list, err := dataset.Diff(old, now)
		m.must(err)
		m.equal(len(list), 10)
	}
}
