package dataset_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/blockpool/dataset/memtree"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// memWorld is a tree in memory, which loses what was not flushed when it crashes.
type memWorld struct {
	tree *memtree.Tree
	ids  uint64
}

func newMemWorld() *memWorld {
	return &memWorld{tree: memtree.New("tank/home", 7, testRecord), ids: 100}
}

func (w *memWorld) open() dataset.Tree { return w.tree.Open() }
func (w *memWorld) steps() int         { return w.tree.Steps() }

func (w *memWorld) snapshot() func() dataset.Differ {
	w.ids++
	t := w.tree.Snapshot(fmt.Sprintf("tank/home@%d", w.ids), w.ids)
	return func() dataset.Differ { return t.Open() }
}

func (w *memWorld) crash(rng *rand.Rand, among []int) int {
	kept := slices.DeleteFunc(among, func(n int) bool { return n < w.tree.Flushed() })
	n := kept[rng.IntN(len(kept))]
	w.tree = w.tree.Crash(n)
	return n
}

// poolWorld is a dataset of a pool, whose process is killed when it crashes.
type poolWorld struct {
	testing.TB
	dir     string
	storage *memdev.Journal
	pool    *blockpool.Pool
	ids     int
}

func newPoolWorld(t testing.TB, record int64, packed blockpool.Compression) *poolWorld {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lamina") // what a sync costs is not the point
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &poolWorld{TB: t, dir: dir, storage: memdev.NewUnrecorded()}
	err = blockpool.Create(blockpool.CreateOptions{
		Config: blockpool.Config{Name: "tank"}, Storage: w.storage, Metadata: []string{blockpool.ReplicaName(dir, 0)},
		Devices: []blockpool.DeviceSpec{{Path: filepath.Join(dir, "disk"), Size: 512 << 20}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() { w.pool.Abandon() })
	err = w.pool.CreateDataset(t.Context(), "home", blockpool.DatasetOptions{RecordSize: record, Compression: packed})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *poolWorld) start() {
	pool, err := blockpool.Open(w.dir, blockpool.OpenOptions{Storage: w.storage, Tunables: blockpool.Tunables{TxgInterval: 100 * time.Millisecond}})
	if err != nil {
		w.Fatal(err)
	}
	w.pool = pool
}

// openTree opens a dataset or snapshot.
func (w *poolWorld) openTree(name string) dataset.Differ {
	t, err := w.pool.OpenTree(name)
	if err != nil {
		w.Fatal(err)
	}
	return dataset.PoolTree(t)
}

func (w *poolWorld) open() dataset.Tree { return w.openTree("home") }
func (w *poolWorld) steps() int         { return 0 } // a process that is killed loses none

func (w *poolWorld) snapshot() func() dataset.Differ {
	w.ids++
	name := fmt.Sprintf("home@%d", w.ids)
	if err := w.pool.Snapshot(w.Context(), "home", name); err != nil {
		w.Fatal(err)
	}
	return func() dataset.Differ { return w.openTree(name) }
}

func (w *poolWorld) crash(_ *rand.Rand, among []int) int {
	w.pool.Abandon()
	w.start()
	return among[len(among)-1]
}

func TestModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, newMemWorld(), dataset.Options{ShareFrom: 2 * testRecord}, seed, modelSteps(t, 1500))
		})
	}
}

func TestModelOverAPool(t *testing.T) {
	for seed, record := range []int64{4 << 10, 16 << 10, 128 << 10} {
		t.Run(fmt.Sprint(record), func(t *testing.T) {
			t.Parallel()
			packed := []blockpool.Compression{blockpool.CompressionOff, blockpool.CompressionLZ4, blockpool.CompressionOff}[seed]
			runModel(t, newPoolWorld(t, record, packed), dataset.Options{ShareFrom: 2 * record}, uint64(seed), modelSteps(t, 800))
		})
	}
}
