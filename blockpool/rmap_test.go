package blockpool

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// A spot is a record of a volume.
type spot struct {
	volume string
	record uint64
}

// Who replaces a bad disk wants to know everything that was on the bad sectors.
func TestRmapFindsEveryRecordInTheRange(t *testing.T) {
	for _, profile := range []struct {
		Profile
		devices int
	}{{Single, 2}, {Mirror, 2}, {RaidZ1, 4}, {RaidZ2, 5}} {
		t.Run(profile.String(), func(t *testing.T) {
			b := newBench(t, Config{DataProfile: profile.Profile}, profile.devices, 64<<20)
			rng := rand.New(rand.NewPCG(9, 9))
			for i, size := range []int64{4 << 10, 32 << 10} {
				name := fmt.Sprintf("v%d", i)
				b.must(b.CreateVolume(ctx, name, 8<<20, VolumeOptions{RecordSize: size}))
				v := b.volume(name)
				for s := range 4 {
					for range 30 {
						if _, err := v.WriteAt(fill(20_000, 1), rng.Int64N(8<<20-20_000)); err != nil {
							t.Fatal(err)
						}
					}
					b.must(b.Snapshot(ctx, name, fmt.Sprintf("%s@%d", name, s)))
				}
				v.Close()
			}
			// The model: the sectors that each record of each map takes, on which device.
			all := map[spot]extent{}
			e := b.epochs.hold()
			for _, v := range b.catalogue.all() {
				en := v.entry.Load()
				b.must(btree.Scan(e, en.root, nil, nil, func(key, value []byte) error {
					n, _ := parseKey64(key)
					rec, err := format.ParseRecord(value)
					all[spot{en.name, n}] = b.space.extent(rec.Addr, int64(rec.Size))
					return err
				}))
			}
			e.release()
			collect := func(got map[spot]extent) func(Mapping) error {
				return func(m Mapping) error {
					each := m.Sectors / int64(m.Count)
					for i := range m.Count {
						at := spot{m.Volume, m.First + i}
						if _, twice := got[at]; twice {
							t.Fatalf("%v is told twice", at)
						}
						got[at] = extent{m.Addr + format.Addr(int64(i)*each), each}
					}
					return nil
				}
			}
			for range 40 {
				c := b.space.all()[rng.IntN(len(b.space.all()))]
				at, n := c.Base+format.Addr(rng.Int64N(c.Sectors)), 1+rng.Int64N(300)
				want, got := map[spot]extent{}, map[spot]extent{}
				for p, x := range all {
					if x.at < at+format.Addr(n) && at < x.at+format.Addr(x.n) {
						want[p] = x
					}
				}
				b.must(b.Rmap(ctx, at, n, collect(got)))
				if !maps.Equal(got, want) {
					t.Fatalf("%d sectors at %d: %v, want %v", n, at, got, want)
				}
			}
			for range 40 {
				d := b.devices.all()[rng.IntN(profile.devices)]
				off, n := rng.Int64N(40<<20), 1+rng.Int64N(200<<10)
				want, got := map[spot]extent{}, map[spot]extent{}
				for p, x := range all {
					if onDevice(b, x, d.id, off, n) {
						want[p] = x
					}
				}
				b.must(b.RmapDevice(ctx, d.state.Load().path, off, n, collect(got)))
				if !maps.Equal(got, want) {
					t.Fatalf("%d bytes at %d of device %d: %v, want %v", n, off, d.id, got, want)
				}
			}
			if err := b.RmapDevice(ctx, "/nowhere", 0, 1, nil); !errors.Is(err, ErrNotFound) {
				t.Errorf("no such device: %v", err)
			}
			if err := b.Rmap(ctx, 0, 0, nil); !errors.Is(err, ErrInvalid) {
				t.Errorf("no sectors: %v", err)
			}
		})
	}
}

// onDevice asks sector by sector.
func onDevice(b *bench, x extent, id uint32, off, n int64) bool {
	c, err := b.space.chunk(x.at)
	b.must(err)
	for s := range x.n {
		raw := int64(x.at-c.Base) + s
		for i, col := range c.Columns {
			row := raw
			if width := int64(len(c.Columns)); c.Profile.Parity() > 0 {
				if raw%width != int64(i) {
					continue
				}
				row = raw / width
			}
			at := col.Start + row*format.SectorSize
			if col.Device == raid.DeviceID(id) && at < off+n && off < at+format.SectorSize {
				return true
			}
		}
	}
	return false
}
