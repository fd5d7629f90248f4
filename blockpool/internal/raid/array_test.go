package raid

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/vdev/memdev"
)

func TestRecordsOfAllSizesComeBack(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		r := newRig(t, profile, width)
		at, written := format.Addr(chunkBase), map[format.Addr][]byte{}
		for i, n := range sizes {
			data := randomBytes(uint64(i), n)
			r.write(t, at, data)
			written[at] = data
			at += format.Addr(r.chunk.Need(int64(n)))
		}
		r.sync(t)
		for at, data := range written {
			r.mustRead(t, at, data)
		}
		if len(r.faults)+len(r.healed) > 0 {
			t.Errorf("%v of %d: faults %v, healed %v", profile, width, r.faults, r.healed)
		}
	})
}

// TestEveryTolerableDamageHeals tries all combinations of bad columns in all
// ways to be bad: after one read, every column is right again.
func TestEveryTolerableDamageHeals(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		r, seed := newRig(t, profile, width), uint64(0)
		for _, n := range []int{4096, 10000, 65536} {
			at := format.Addr(chunkBase + 5)
			data := randomBytes(uint64(n), n)
			r.write(t, at, data)
			for count := 1; count <= r.tolerance(); count++ {
				subsets(width, count, func(columns []int) {
					seed++
					hit := 0
					for _, c := range columns {
						if r.damage(seed, at, n, c) {
							hit++
						}
					}
					r.healed = nil
					r.mustRead(t, at, data)
					result, err := r.Scrub(r.chunk, at, n, is(data))
					if err != nil || result.Total().Unrecoverable > 0 {
						t.Fatalf("scrub: %+v, %v", result, err)
					}
					if len(r.healed) != hit {
						t.Fatalf("%v of %d, columns %v: %d damaged, healed %v", profile, width, columns, hit, r.healed)
					}
					if result, _ = r.Scrub(r.chunk, at, n, is(data)); result.Total().Mended > 0 {
						t.Fatalf("%v of %d, columns %v: mended twice: %+v", profile, width, columns, result)
					}
				})
			}
		}
	})
}

func TestEveryTolerableLossIsRead(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		for count := 1; count <= width && profile.Parity()+1 >= count; count++ {
			subsets(width, count, func(columns []int) {
				r := newRig(t, profile, width)
				const n, at = 50000, chunkBase + 3
				data := randomBytes(1, n)
				r.write(t, at, data)
				for _, c := range columns {
					r.Remove(r.id(c))
				}
				if count <= r.tolerance() {
					r.mustRead(t, at, data)
					return
				}
				got := randomBytes(2, n)
				err := r.Read(r.chunk, at, got, is(data))
				var damage *DamageError
				if !errors.As(err, &damage) || !errors.Is(err, format.ErrDamaged) {
					t.Fatalf("%v of %d without %v: %v", profile, width, columns, err)
				}
				if !bytes.Equal(got, make([]byte, n)) {
					t.Fatal("bytes that do not verify were returned")
				}
			})
		}
	})
}

// TestOneMoreThanTolerableIsDamage wants an error, and never wrong bytes.
func TestOneMoreThanTolerableIsDamage(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		const n, at = 40000, chunkBase + 1 // on all columns of all layouts
		data := randomBytes(1, n)
		subsets(width, newRig(t, profile, width).tolerance()+1, func(columns []int) {
			r := newRig(t, profile, width)
			r.write(t, at, data)
			for i, c := range columns {
				r.damage(uint64(i), at, n, c)
			}
			got := make([]byte, n)
			err := r.Read(r.chunk, at, got, is(data))
			var damage *DamageError
			if !errors.As(err, &damage) || damage.Addr != at || damage.Chunk != 7 || damage.Bytes != n {
				t.Fatalf("%v of %d, columns %v: %v", profile, width, columns, err)
			}
			if !bytes.Equal(got, make([]byte, n)) || len(r.healed) > 0 {
				t.Fatalf("wrong bytes were returned, or healed: %v", r.healed)
			}
			result, err := r.Scrub(r.chunk, at, n, is(data))
			if !errors.As(err, &damage) || result.Total().Unrecoverable == 0 {
				t.Fatalf("scrub: %+v, %v", result, err)
			}
		})
	})
}

// TestWhatNoRecordFillsHarmsNone damages the rest of the last sector, which is
// no record's but goes into the parity.
func TestWhatNoRecordFillsHarmsNone(t *testing.T) {
	for width := 3; width <= 6; width++ {
		for column := range width {
			r := newRig(t, format.RaidZ1, width)
			data := randomBytes(1, 16384-1000)
			r.write(t, chunkBase, data)
			s := r.chunk.stripe(chunkBase, len(data))
			last := &s.all[s.count-1]
			end := last.off(r.chunk.Columns[last.column].Start) + last.bytes()
			r.devs[last.column].Scribble(1, end-1000, 1000)
			r.Remove(r.id(column))
			r.mustRead(t, chunkBase, data)
		}
	}
}

// TestFlippedBitsAreFound is the pool's table: mirror and raidz heal all,
// single detects all.
func TestFlippedBitsAreFound(t *testing.T) {
	for _, c := range []struct {
		profile format.Profile
		width   int
	}{{format.Single, 1}, {format.Mirror, 2}, {format.RaidZ1, 4}, {format.RaidZ2, 5}} {
		r := newRig(t, c.profile, c.width)
		data := randomBytes(9, 16384)
		r.write(t, chunkBase, data)
		s := r.chunk.stripe(chunkBase, len(data))
		for seed := range uint64(1000) {
			p := &s.all[seed%uint64(s.count)]
			d, off := r.devs[p.column], p.off(r.chunk.Columns[p.column].Start)
			before := d.Peek(off, p.bytes())
			switch seed % 3 {
			case 0:
				d.FlipBits(seed, off, p.bytes(), 1+int(seed%5))
			case 1:
				d.Zero(off, p.bytes())
			case 2:
				d.Poke(off, randomBytes(seed, 4096)) // of another record
			}
			got := make([]byte, len(data))
			err := r.Read(r.chunk, chunkBase, got, is(data))
			if c.profile == format.Single {
				if !errors.Is(err, format.ErrDamaged) {
					t.Fatalf("single, seed %d: %v", seed, err)
				}
				d.Poke(off, before)
				continue
			}
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%v, seed %d: %v", c.profile, seed, err)
			}
			if _, err := r.Scrub(r.chunk, chunkBase, len(data), is(data)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(d.Peek(off, p.bytes()), before) {
				t.Fatalf("%v, seed %d: not healed", c.profile, seed)
			}
		}
	}
}

// TestLyingWritesAreHealed has writes dropped and misdirected on as many
// columns as may be bad.
func TestLyingWritesAreHealed(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		if profile == format.Single {
			return
		}
		for _, lie := range []memdev.Fault{
			{Ops: memdev.Writes, Times: 1, Drop: true},
			{Ops: memdev.Writes, Times: 1, Shift: 8 << 20},
		} {
			r := newRig(t, profile, width)
			const n, at = 70000, chunkBase + 9
			data := randomBytes(3, n)
			subsets(width, r.tolerance(), func(columns []int) {
				r.write(t, at, randomBytes(4, n)) // what was there before
				for _, c := range columns {
					defer r.devs[c].Inject(lie)()
				}
				r.write(t, at, data)
				r.mustRead(t, at, data)
				if _, err := r.Scrub(r.chunk, at, n, is(data)); err != nil {
					t.Fatalf("%v of %d, columns %v: %v", profile, width, columns, err)
				}
			})
		}
	})
}

// TestReadErrorsAreHealed has sectors that cannot be read until they are
// rewritten.
func TestReadErrorsAreHealed(t *testing.T) {
	layouts(func(profile format.Profile, width int) {
		if profile == format.Single {
			return
		}
		r := newRig(t, profile, width)
		const n, at = 128 << 10, chunkBase
		data := randomBytes(3, n)
		r.write(t, at, data)
		subsets(width, r.tolerance(), func(columns []int) {
			r.healed = nil
			var disarm []func()
			for _, c := range columns {
				disarm = append(disarm, r.devs[c].Inject(memdev.Fault{Ops: memdev.Reads, Err: unix.EIO}))
			}
			if _, err := r.Scrub(r.chunk, at, n, is(data)); err != nil {
				t.Fatal(err)
			}
			if len(r.healed) != len(columns) {
				t.Fatalf("%v of %d: columns %v, healed %v", profile, width, columns, r.healed)
			}
			r.mustRead(t, at, data)
			for _, f := range disarm {
				f()
			}
		})
	})
}
