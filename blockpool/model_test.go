package blockpool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

// A modelled volume is what one must be.
type modelled struct {
	name       string
	id         int // the order in which they came to be
	origin     int
	recordSize int64
	data       []byte
	refquota   int64
	referenced int64 // at the last sync
}

func (m *modelled) snapshot() bool { return strings.Contains(m.name, "@") }

// A model does random things to volumes of a pool whose names have a prefix, and
// knows what must come out.
type model struct {
	b      *bench
	prefix string
	rng    *rand.Rand
	vols   map[string]*modelled
	names  int
	ids    int
	full   int // writes that found no space
	log    []string
}

const (
	modelVolumes = 20
	modelMaxSize = 4 << 20
)

func newModel(b *bench, prefix string, seed uint64) *model {
	return &model{b: b, prefix: prefix, rng: rand.New(rand.NewPCG(seed, 1)), vols: map[string]*modelled{}}
}

// note keeps the last things that were done, to be told when something is wrong.
func (m *model) note(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf(format, args...))
	if len(m.log) > 40 {
		m.log = m.log[1:]
	}
}

func (m *model) pick(which func(*modelled) bool) *modelled {
	var list []*modelled
	for _, v := range m.vols {
		if which == nil || which(v) {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortFunc(list, func(a, b *modelled) int { return strings.Compare(a.name, b.name) })
	return list[m.rng.IntN(len(list))]
}

func writable(v *modelled) bool { return !v.snapshot() }

func (m *model) fresh() string {
	m.names++
	return fmt.Sprintf("%s%d", m.prefix, m.names)
}

func (m *model) add(name string, recordSize int64, data []byte, origin int) *modelled {
	m.ids++
	v := &modelled{name: name, id: m.ids, origin: origin, recordSize: recordSize, data: data}
	m.vols[name] = v
	return v
}

// size is a random virtual size, often one that is no multiple of a record.
func (m *model) size() int64 {
	n := 1 + m.rng.Int64N(modelMaxSize)
	if m.rng.IntN(2) == 0 {
		n = (n + 131071) / 131072 * 131072
	}
	return n
}

// span is a random range of a volume, at any alignment.
func (m *model) span(v *modelled) (off, n int64) {
	size := int64(len(v.data))
	n = 1 + m.rng.Int64N([...]int64{100, 5000, 40 << 10, 300 << 10, 2 << 20}[m.rng.IntN(5)])
	n = min(n, size)
	off = m.rng.Int64N(size - n + 1)
	if m.rng.IntN(3) == 0 { // whole records
		off = off / v.recordSize * v.recordSize
		n = min((n+v.recordSize-1)/v.recordSize*v.recordSize, size-off)
	}
	return off, n
}

// step does one random thing.
func (m *model) step() error {
	switch k := m.rng.IntN(1000); {
	case k < 430:
		return m.write()
	case k < 490:
		return m.zero()
	case k < 600:
		return m.read()
	case k < 700:
		return m.flush()
	case k < 730:
		return m.sync()
	case k < 770:
		return m.create()
	case k < 830:
		return m.snapshot()
	case k < 870:
		return m.clone()
	case k < 885:
		return m.promote()
	case k < 900:
		return m.rename()
	case k < 915:
		return m.rollback()
	case k < 940:
		return m.resize()
	case k < 955:
		return m.limits()
	case k < 975:
		return m.refused()
	default:
		return m.destroy()
	}
}

// with opens a volume for one call.
func (m *model) with(v *modelled, f func(*Volume) error) error {
	h, err := m.b.Open(v.name)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

func (m *model) write() error {
	v := m.pick(writable)
	if v == nil {
		return m.create()
	}
	off, n := m.span(v)
	p := noise(n, m.rng.Uint64())
	m.note("write %s %d+%d", v.name, off, n)
	return m.with(v, func(h *Volume) error {
		done, err := h.WriteAt(p, off)
		copy(v.data[off:], p[:done])
		if err != nil {
			return m.failedChange(v, h, err)
		}
		return nil
	})
}

// failedChange accepts an error of a change, if there is a reason for it.
func (m *model) failedChange(v *modelled, h *Volume, err error) error {
	if errors.Is(err, ErrQuota) && v.refquota > 0 {
		return nil
	}
	if !errors.Is(err, ErrNoSpace) {
		return err
	}
	m.full++
	if free, total := m.b.space.available(format.Data), m.b.space.total(format.Data); free > total/3 {
		return fmt.Errorf("%d of %d sectors are free: %w", free, total, err)
	}
	return nil
}

func (m *model) zero() error {
	v := m.pick(writable)
	if v == nil {
		return nil
	}
	off, n := m.span(v)
	if m.rng.IntN(30) == 0 {
		off, n = 0, int64(len(v.data))
	}
	m.note("zero %s %d+%d", v.name, off, n)
	return m.with(v, func(h *Volume) (err error) {
		if m.rng.IntN(2) == 0 {
			err = h.Zero(ctx, off, n)
		} else {
			err = h.Discard(ctx, off, n)
		}
		if err == nil {
			clear(v.data[off : off+n])
			return nil
		}
		if err := m.failedChange(v, h, err); err != nil {
			return err
		}
		return m.adopt(v, h, off, n)
	})
}

// adopt takes over what a change to zeros that failed has left: record by record
// as it was, or zeros.
func (m *model) adopt(v *modelled, h *Volume, off, n int64) error {
	for at := off; at < off+n; {
		end := min((at/v.recordSize+1)*v.recordSize, off+n)
		got := make([]byte, end-at)
		if _, err := h.ReadAt(got, at); err != nil && err != io.EOF {
			return err
		}
		switch {
		case bytes.Equal(got, v.data[at:end]):
		case bytes.Equal(got, make([]byte, len(got))):
			clear(v.data[at:end])
		default:
			return fmt.Errorf("%s at %d is neither old nor zeros", v.name, at)
		}
		at = end
	}
	return nil
}

func (m *model) read() error {
	v := m.pick(nil)
	if v == nil {
		return nil
	}
	off, n := m.span(v)
	return m.with(v, func(h *Volume) error { return m.compare(v, h, off, n) })
}

func (m *model) compare(v *modelled, h *Volume, off, n int64) error {
	got := make([]byte, n)
	if _, err := h.ReadAt(got, off); err != nil && err != io.EOF {
		return err
	}
	want := v.data[off : off+n]
	if !bytes.Equal(got, want) {
		i := slices.IndexFunc(got, func(byte) bool { return true })
		for i < len(got) && got[i] == want[i] {
			i++
		}
		return fmt.Errorf("%s: byte %d (record %d of %d bytes) is %#x, not %#x", v.name, off+int64(i), (off+int64(i))/v.recordSize, v.recordSize, got[i], want[i])
	}
	return nil
}

// compareAll reads everything.
func (m *model) compareAll() error {
	for _, v := range m.vols {
		err := m.with(v, func(h *Volume) error {
			if h.Size() != int64(len(v.data)) || int64(h.RecordSize()) != v.recordSize {
				return fmt.Errorf("%s has %d bytes in records of %d, not %d in %d", v.name, h.Size(), h.RecordSize(), len(v.data), v.recordSize)
			}
			return m.compare(v, h, 0, int64(len(v.data)))
		})
		if err != nil {
			return err
		}
	}
	n := 0
	for _, i := range m.b.Volumes() {
		if strings.HasPrefix(i.Name, m.prefix) {
			n++
			if m.vols[i.Name] == nil {
				return fmt.Errorf("%s is there", i.Name)
			}
		}
	}
	if n != len(m.vols) {
		return fmt.Errorf("%d volumes are there, not %d", n, len(m.vols))
	}
	return nil
}

func (m *model) flush() error {
	v := m.pick(nil)
	if v == nil {
		return nil
	}
	return m.with(v, func(h *Volume) error { return h.Flush(ctx) })
}

func (m *model) sync() error {
	if err := m.b.Sync(ctx); err != nil {
		return err
	}
	for _, v := range m.vols {
		i, err := m.b.Volume(v.name)
		if err != nil {
			return err
		}
		if v.refquota > 0 && i.Referenced > max(v.refquota, v.referenced) {
			return fmt.Errorf("%s references %d bytes, its refquota is %d", v.name, i.Referenced, v.refquota)
		}
		v.referenced = i.Referenced
	}
	return nil
}

func (m *model) create() error {
	if len(m.vols) >= modelVolumes {
		return nil
	}
	size, recordSize := m.size(), int64(4096)<<m.rng.IntN(6)
	name := m.fresh()
	m.note("create %s %d in %d", name, size, recordSize)
	if err := m.b.CreateVolume(ctx, name, size, VolumeOptions{RecordSize: recordSize}); err != nil {
		return err
	}
	m.add(name, recordSize, make([]byte, size), 0)
	return nil
}

func (m *model) snapshot() error {
	from, of := m.pick(nil), m.pick(writable)
	if from == nil || of == nil || len(m.vols) >= modelVolumes {
		return nil
	}
	if writable(from) && m.rng.IntN(4) > 0 {
		of = from
	}
	name := of.name + "@" + strings.TrimPrefix(m.fresh(), m.prefix)
	m.note("snapshot %s %s", from.name, name)
	if err := m.b.Snapshot(ctx, from.name, name); err != nil {
		return err
	}
	m.add(name, from.recordSize, bytes.Clone(from.data), from.id)
	return nil
}

func (m *model) clone() error {
	from := m.pick(nil)
	if from == nil || len(m.vols) >= modelVolumes {
		return nil
	}
	name := m.fresh()
	m.note("clone %s %s", from.name, name)
	if err := m.b.Clone(ctx, from.name, name); err != nil {
		return err
	}
	m.add(name, from.recordSize, bytes.Clone(from.data), from.id)
	return nil
}

func (m *model) byID(id int) *modelled {
	for _, v := range m.vols {
		if v.id == id {
			return v
		}
	}
	return nil
}

func (m *model) promote() error {
	v := m.pick(writable)
	if v == nil {
		return nil
	}
	m.note("promote %s", v.name)
	err := m.b.Promote(ctx, v.name)
	origin := m.byID(v.origin)
	if origin == nil || !origin.snapshot() {
		return wanted(err, ErrInvalid)
	}
	parent, _, _ := strings.Cut(origin.name, "@")
	if parent == v.name {
		return wanted(err, ErrInvalid)
	}
	moved := map[*modelled]string{}
	for _, s := range m.vols {
		if volume, snap, ok := strings.Cut(s.name, "@"); ok && volume == parent && s.id <= origin.id {
			to := v.name + "@" + snap
			if m.vols[to] != nil {
				return wanted(err, ErrExists)
			}
			moved[s] = to
		}
	}
	if err != nil {
		return err
	}
	for s, to := range moved {
		delete(m.vols, s.name)
		s.name = to
		m.vols[to] = s
	}
	if old := m.vols[parent]; old != nil {
		v.origin, old.origin = old.origin, origin.id
	} else {
		v.origin = 0
	}
	return nil
}

// wanted returns nil if err is the one that was to come.
func wanted(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%v, where this was wanted: %w", err, want)
}

func (m *model) rename() error {
	v := m.pick(nil)
	if v == nil {
		return nil
	}
	to := m.fresh()
	if volume, _, ok := strings.Cut(v.name, "@"); ok {
		to = volume + "@" + strings.TrimPrefix(to, m.prefix)
	}
	m.note("rename %s %s", v.name, to)
	if err := m.b.Rename(ctx, v.name, to); err != nil {
		return err
	}
	from := v.name
	for _, s := range m.vols {
		if s == v || strings.HasPrefix(s.name, from+"@") {
			delete(m.vols, s.name)
			s.name = to + strings.TrimPrefix(s.name, from)
			defer func() { m.vols[s.name] = s }()
		}
	}
	return nil
}

func (m *model) rollback() error {
	s := m.pick((*modelled).snapshot)
	if s == nil {
		return nil
	}
	name, _, _ := strings.Cut(s.name, "@")
	v := m.vols[name]
	m.note("rollback %s", s.name)
	err := m.b.Rollback(ctx, s.name)
	switch {
	case v == nil:
		return wanted(err, ErrNotFound)
	case v.recordSize != s.recordSize:
		return wanted(err, ErrInvalid)
	case err != nil:
		return err
	}
	v.data, v.referenced = bytes.Clone(s.data), math.MaxInt64 // until the next sync
	return nil
}

func (m *model) resize() error {
	v := m.pick(writable)
	if v == nil {
		return nil
	}
	size := m.size()
	m.note("resize %s %d to %d", v.name, len(v.data), size)
	err := m.b.Resize(ctx, v.name, size)
	if err != nil { // making zeros may have found no space
		return m.with(v, func(h *Volume) error {
			if err := m.failedChange(v, h, err); err != nil {
				return err
			}
			return m.adopt(v, h, size, int64(len(v.data))-size)
		})
	}
	if size <= int64(len(v.data)) {
		v.data = bytes.Clone(v.data[:size])
	} else {
		v.data = append(v.data, make([]byte, size-int64(len(v.data)))...)
	}
	return nil
}

func (m *model) limits() error {
	v := m.pick(writable)
	if v == nil {
		return nil
	}
	if err := m.sync(); err != nil {
		return err
	}
	refquota := int64(0)
	if m.rng.IntN(2) == 0 {
		refquota = m.rng.Int64N(modelMaxSize)
	}
	m.note("limits %s %d", v.name, refquota)
	if err := m.b.SetLimits(ctx, v.name, -1, refquota, m.rng.Int64N(2)*m.rng.Int64N(200<<10)); err != nil && !errors.Is(err, ErrNoSpace) {
		return err
	} else if err == nil {
		v.refquota = refquota
	}
	return nil
}

// refused does what must not be done.
func (m *model) refused() error {
	v := m.pick(nil)
	if v == nil {
		return nil
	}
	switch m.rng.IntN(7) {
	case 0:
		return wanted(m.b.CreateVolume(ctx, v.name, 1, VolumeOptions{}), map[bool]error{false: ErrExists, true: ErrInvalid}[v.snapshot()])
	case 1:
		return wanted(m.b.Destroy(ctx, m.prefix+"nobody"), ErrNotFound)
	case 2:
		return m.with(v, func(*Volume) error { return wanted(m.b.Destroy(ctx, v.name), ErrBusy) })
	case 3:
		return m.with(v, func(h *Volume) error {
			want := ErrInvalid
			if v.snapshot() {
				want = ErrReadOnly
			}
			_, err := h.WriteAt(make([]byte, 2), int64(len(v.data))-1)
			return wanted(err, want)
		})
	case 4:
		if v.snapshot() {
			return wanted(m.b.Resize(ctx, v.name, 4096), ErrReadOnly)
		}
		return wanted(m.b.Rollback(ctx, v.name+"@nobody"), ErrNotFound)
	case 5:
		return wanted(m.b.Clone(ctx, m.prefix+"nobody", m.fresh()), ErrNotFound)
	default:
		return wanted(m.b.Rename(ctx, v.name, v.name), ErrExists)
	}
}

func (m *model) destroy() error {
	v := m.pick(nil)
	if v == nil {
		return nil
	}
	m.note("destroy %s", v.name)
	if err := m.b.Destroy(ctx, v.name); err != nil {
		return err
	}
	delete(m.vols, v.name)
	return nil
}

// destroyAll ends everything, in any order.
func (m *model) destroyAll() error {
	for len(m.vols) > 0 {
		if err := m.destroy(); err != nil {
			return err
		}
	}
	return nil
}

// failed says what went wrong, and what came before.
func (m *model) failed(t testing.TB, err error) {
	t.Helper()
	for _, l := range m.log {
		t.Log(l)
	}
	t.Fatal(err)
}

// drain waits until nothing is left to be made durable or freed.
func (b *bench) drain() error {
	for first := true; first || b.dead.pending(); first = false {
		if err := b.Sync(ctx); err != nil {
			return err
		}
	}
	return b.Sync(ctx)
}

// recount drains the pool and counts everything anew.
func (b *bench) recount() error {
	if err := b.drain(); err != nil {
		return err
	}
	return recountAll(b.Pool, true)
}

// retune chooses other limits for the next opening, small ones, so that all
// that bounds a txg is met often.
func (b *bench) retune(rng *rand.Rand) {
	b.opts.Tunables.DirtyLimit = 64 << 10 << (2 * rng.IntN(4))
	b.opts.Tunables.NodeCache = 1 << 10 << rng.IntN(12)
	b.opts.Tunables.ReadCache = 1 << 18 << rng.IntN(8)
	b.opts.Tunables.deadPerTxg = 3 << (2 * rng.IntN(5))
}

var modelProfiles = []struct {
	Profile
	devices int
	meta    Profile
}{{Single, 1, Single}, {Single, 2, Mirror}, {Mirror, 2, Mirror}, {RaidZ1, 3, Single}, {RaidZ2, 5, Single}, {Mirror, 3, Single}}

// fromEnv returns an environment variable's number, or what stands for it.
func fromEnv(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestVolumesAreWhatTheModelSays is about everything that users can do one after
// the other. LAMINA_MODEL_OPS operations for each of LAMINA_MODEL_SEEDS seeds.
func TestVolumesAreWhatTheModelSays(t *testing.T) {
	t.Parallel()
	ops, seeds, first := fromEnv("LAMINA_MODEL_OPS", 1500), fromEnv("LAMINA_MODEL_SEEDS", 6), fromEnv("LAMINA_MODEL_SEED", 1)
	for seed := first; seed < first+seeds; seed++ {
		profile := modelProfiles[seed%len(modelProfiles)]
		t.Run(fmt.Sprintf("seed %d, %v", seed, profile.Profile), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 3))
			b := newModelBench(t, profile.Profile, profile.devices, profile.meta, rng)
			m := newModel(b, "v", uint64(seed))
			for i := range ops {
				err := m.step()
				if err == nil && rng.IntN(300) == 0 {
					b.retune(rng)
					if rng.IntN(3) == 0 {
						m.note("reopen")
						b.reopen()
					} else {
						m.note("kill")
						b.crash()
					}
					err = m.compareAll()
				}
				if err == nil && rng.IntN(1000) == 0 {
					m.note("recount")
					if err = b.recount(); err == nil {
						err = m.compareAll()
					}
				}
				if err != nil {
					m.failed(t, fmt.Errorf("step %d: %w", i, err))
				}
			}
			if err := errors.Join(m.compareAll(), m.destroyAll(), b.recount()); err != nil {
				m.failed(t, err)
			}
			b.nothingLeft()
			t.Logf("%d writes found no space", m.full)
		})
	}
}

// nothingLeft fails if an empty pool has something in use.
func (b *bench) nothingLeft() {
	b.Helper()
	for _, c := range b.space.all() {
		if got := int64(c.free.Free()); got != c.Sectors {
			b.Errorf("chunk %d: %d of %d sectors are free", c.ID, got, c.Sectors)
		}
	}
	if n := len(recountNodes(b.Pool)); n != 0 {
		b.Errorf("%d nodes are left", n)
	}
}

// newModelBench makes a pool that is soon full.
func newModelBench(t testing.TB, profile Profile, devices int, metadata Profile, rng *rand.Rand) *bench {
	b := newSmallBench(t, Config{DataProfile: profile, MetadataProfile: metadata}, devices, memdev.NewUnrecorded())
	b.retune(rng)
	b.open()
	return b
}

// newSmallBench makes the smallest pool there can be, and leaves it closed.
func newSmallBench(t testing.TB, c Config, n int, j *memdev.Journal) *bench {
	t.Helper()
	b := &bench{TB: t, journal: j, dir: tempDir(t)}
	c.Name, c.ChunkSize = "tank", minChunkSize
	o := CreateOptions{Config: c, LogSize: extentUnit, Storage: j, Metadata: []string{ReplicaName(b.dir, 0)}}
	if c.MetadataProfile == Mirror {
		o.Metadata = append(o.Metadata, ReplicaName(b.dir, 1))
	}
	for i := range n {
		o.Devices = append(o.Devices, DeviceSpec{Path: fmt.Sprintf("/disk%d", i), Size: minDeviceSize})
	}
	if err := Create(o); err != nil {
		t.Fatal(err)
	}
	b.opts = OpenOptions{Storage: j, Tunables: Tunables{TxgInterval: time.Hour}}
	t.Cleanup(func() {
		if b.Pool != nil {
			b.Abandon()
		}
	})
	return b
}

// noise returns n random bytes.
func noise(n int64, seed uint64) []byte {
	p := make([]byte, (n+7)/8*8)
	rng := rand.NewPCG(seed, 7)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	return p[:n]
}

// TestVolumesAreWhatTheirModelsSay has several goroutines at work side by side,
// each on volumes of its own.
func TestVolumesAreWhatTheirModelsSay(t *testing.T) {
	t.Parallel()
	ops, seeds := fromEnv("LAMINA_MODEL_OPS", 1500)/20, fromEnv("LAMINA_MODEL_SEEDS", 2)
	for seed := range seeds {
		profile := modelProfiles[(seed+2)%len(modelProfiles)]
		t.Run(fmt.Sprintf("seed %d, %v", seed, profile.Profile), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 4))
			b := newModelBench(t, profile.Profile, profile.devices, profile.meta, rng)
			b.opts.Tunables.TxgInterval = 20 * time.Millisecond
			var models []*model
			for i := range 4 {
				models = append(models, newModel(b, fmt.Sprintf("%c", 'a'+i), uint64(seed*10+i)))
			}
			for range 20 {
				errs := make([]error, len(models))
				var wg sync.WaitGroup
				for i, m := range models {
					wg.Go(func() {
						for range ops {
							if errs[i] = m.step(); errs[i] != nil {
								return
							}
						}
					})
				}
				wg.Wait()
				for i, m := range models {
					if errs[i] == nil && i == 0 && rng.IntN(3) == 0 {
						errs[i] = b.recount()
					}
					if errs[i] != nil {
						m.failed(t, errs[i])
					}
				}
				b.retune(rng)
				if rng.IntN(2) == 0 {
					b.crash()
				} else {
					b.reopen()
				}
				for _, m := range models {
					if err := m.compareAll(); err != nil {
						m.failed(t, err)
					}
				}
			}
			for _, m := range models {
				b.must(m.destroyAll())
			}
			b.must(b.recount())
			b.nothingLeft()
		})
	}
}
