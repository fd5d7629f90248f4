package blockpool

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/laminafs/lamina/blockpool/internal/thinxml"
)

// sparse is a data device in memory.
type sparse map[int64][]byte

func (s sparse) WriteAt(p []byte, off int64) (int, error) {
	if off%thinBlock != 0 || len(p) != thinBlock {
		return 0, fmt.Errorf("%d bytes at %d", len(p), off)
	}
	s[off/thinBlock] = bytes.Clone(p)
	return len(p), nil
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); n += thinBlock {
		b, ok := s[(off+int64(n))/thinBlock]
		if !ok {
			return n, io.EOF
		}
		copy(p[n:], b)
	}
	return len(p), nil
}

// thinTool runs one of Debian's thin-provisioning-tools.
func thinTool(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", args[0]))
	}
	if err != nil {
		t.Skipf("%s is not installed (Debian: thin-provisioning-tools)", args[0])
	}
	out, err := exec.Command(path, args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// throughThinTools makes dm-thin's binary metadata of XML, has it checked, and
// returns thin_dump's XML of it.
func throughThinTools(t *testing.T, text string) string {
	t.Helper()
	in, metadata := filepath.Join(t.TempDir(), "in.xml"), filepath.Join(t.TempDir(), "meta")
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(metadata, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	thinTool(t, "thin_restore", "-q", "-i", in, "-o", metadata)
	thinTool(t, "thin_check", "-q", metadata)
	return string(thinTool(t, "thin_dump", metadata))
}

// thinPool is a pool of 64K volumes that share in every way.
func thinPool(t *testing.T, seed uint64) *bench {
	b := newBench(t, Config{RecordSize: DevicemapperRecordSize}, 1, 256<<20)
	rng := rand.New(rand.NewPCG(seed, 3))
	b.must(b.CreateVolume(ctx, "base", 4<<20, VolumeOptions{}))
	names := []string{"base"}
	for i := range 25 {
		name := names[rng.IntN(len(names))]
		if rng.IntN(3) == 0 && len(names) < 8 {
			clone := fmt.Sprintf("c%d", i)
			b.must(b.Clone(ctx, name, clone))
			names = append(names, clone)
			continue
		}
		if rng.IntN(8) == 0 {
			b.must(b.Snapshot(ctx, name, fmt.Sprintf("%s@s%d", name, i)))
			continue
		}
		v := b.volume(name)
		off := rng.Int64N(v.Size() - 300<<10)
		if rng.IntN(5) == 0 {
			b.must(v.Discard(ctx, off, 200<<10))
		} else if _, err := v.WriteAt(fill(1+rng.IntN(300<<10), rng.Uint64()), off); err != nil {
			t.Fatal(err)
		}
		b.must(v.Close())
	}
	b.must(b.Sync(ctx))
	return b
}

// same compares a volume's content with another's, which may end earlier, in zeros.
func sameBytes(a, b []byte) bool {
	n := min(len(a), len(b))
	return bytes.Equal(a[:n], b[:n]) && len(bytes.Trim(a[n:], "\x00")) == 0 && len(bytes.Trim(b[n:], "\x00")) == 0
}

func TestAPoolGoesToDMThinAndComesBackSharingWhatItShared(t *testing.T) {
	for seed := range uint64(6) {
		b := thinPool(t, seed)
		var text bytes.Buffer
		data := sparse{}
		devices, err := b.DumpThin(ctx, &text, data)
		b.must(err)
		records := b.checked().Records
		if uint64(len(data)) != records {
			t.Errorf("%d blocks of data, the pool has %d records", len(data), records)
		}
		dump := throughThinTools(t, text.String())
		names := map[uint32]string{}
		for _, d := range devices {
			names[d.ID] = strings.ReplaceAll("thin/"+d.Name, "@", "-at-")
		}
		c := newBench(t, Config{}, 1, 256<<20)
		b.must(c.RestoreThin(ctx, strings.NewReader(dump), data, func(id uint32) string { return names[id] }))
		for _, d := range devices {
			if !sameBytes(c.content(names[d.ID]), b.content(d.Name)) {
				t.Errorf("seed %d: %s differs", seed, d.Name)
			}
		}
		r := c.checked()
		c.clean(r)
		if r.Records != records {
			t.Errorf("seed %d: %d records, there were %d: something is not shared any more", seed, r.Records, records)
		}
	}
}

// A pool that dm-thin is to write to needs free blocks: all that its device has.
func TestADumpSaysHowLargeTheDataDeviceIs(t *testing.T) {
	b := thinPool(t, 1)
	f, err := os.Create(filepath.Join(t.TempDir(), "data"))
	b.must(err)
	defer f.Close()
	b.must(f.Truncate(1 << 30))
	var text bytes.Buffer
	_, err = b.DumpThin(ctx, &text, f)
	b.must(err)
	if dump := throughThinTools(t, text.String()); !strings.Contains(dump, `nr_data_blocks="16384"`) {
		t.Errorf("a device of 1 GiB: %.200s", dump)
	}
}

// TestSharedBlocksAreOlderThanTheirDevicesSnapshots is what keeps dm-thin from
// writing over a block that another device has: it looks at times, not at counts.
func TestSharedBlocksAreOlderThanTheirDevicesSnapshots(t *testing.T) {
	b := thinPool(t, 3)
	var text bytes.Buffer
	_, err := b.DumpThin(ctx, &text, nil)
	b.must(err)
	users := map[uint64]int{}
	walk := func(f func(dev thinxml.Device, m thinxml.Mapping, block uint64)) {
		r, err := thinxml.NewReader(bytes.NewReader(text.Bytes()), thinxml.Options{})
		b.must(err)
		for {
			dev, err := r.NextDevice()
			if errors.Is(err, io.EOF) {
				return
			}
			b.must(err)
			for {
				m, err := r.NextMapping()
				if errors.Is(err, io.EOF) {
					break
				}
				b.must(err)
				for i := range m.Length {
					f(dev, m, m.Data+i)
				}
			}
		}
	}
	walk(func(_ thinxml.Device, _ thinxml.Mapping, block uint64) { users[block]++ })
	shared := 0
	walk(func(dev thinxml.Device, m thinxml.Mapping, block uint64) {
		if looksShared := m.Time < dev.SnapTime; looksShared != (users[block] > 1) {
			t.Errorf("device %d: block %d has %d users, its time is %d, the device's %d", dev.ID, block, users[block], m.Time, dev.SnapTime)
		}
		if users[block] > 1 {
			shared++
		}
	})
	if shared == 0 {
		t.Error("nothing is shared")
	}
	if err := xml.Unmarshal(text.Bytes(), new(struct{})); err != nil {
		t.Error(err)
	}
}

// TestAThinPoolOfAnyShapeIsImported makes pools that no snapshot made: devices that
// share blocks at other places, with blocks of several records.
func TestAThinPoolOfAnyShapeIsImported(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 8))
		per := 1 + rng.IntN(2)
		const blocks = 60
		data := sparse{}
		for i := range int64(blocks * per) {
			data[i] = fill(thinBlock, seed<<32+uint64(i))
		}
		var text bytes.Buffer
		w := thinxml.NewWriter(&text)
		b := newBench(t, Config{}, 1, 256<<20)
		b.must(w.Superblock(thinxml.Superblock{DataBlockSize: uint32(per) * 128, NrDataBlocks: blocks}))
		want, used := map[string][]byte{}, map[int]bool{}
		var last map[int]int
		for id := range uint32(6) {
			maps := map[int]int{}
			for o := range 40 {
				switch d, ok := last[o]; {
				case ok && rng.IntN(8) > 0:
					maps[o] = d
				case rng.IntN(3) == 0:
					maps[o] = rng.IntN(blocks)
				}
			}
			if rng.IntN(3) > 0 {
				last = maps
			}
			b.must(w.Device(thinxml.Device{ID: id, MappedBlocks: uint64(len(maps))}))
			content := make([]byte, 40*per*thinBlock)
			for o := range 40 {
				d, ok := maps[o]
				if !ok {
					continue
				}
				used[d] = true
				b.must(w.Map(thinxml.Mapping{Origin: uint64(o), Data: uint64(d), Length: 1}))
				_, err := data.ReadAt(content[o*per*thinBlock:][:per*thinBlock], int64(d*per)*thinBlock)
				b.must(err)
			}
			b.must(w.EndDevice())
			want[fmt.Sprintf("dev%d", id)] = content
		}
		b.must(w.Close())
		b.must(b.RestoreThin(ctx, &text, data, func(id uint32) string { return fmt.Sprintf("dev%d", id) }))
		for name, content := range want {
			if !sameBytes(b.content(name), content) {
				t.Errorf("seed %d: %s differs", seed, name)
			}
		}
		r := b.checked()
		b.clean(r)
		if r.Records != uint64(len(used)*per) {
			t.Errorf("seed %d: %d records of %d blocks", seed, r.Records, len(used))
		}
	}
}

func TestWhatDMThinCannotTakeOrGiveIsRefused(t *testing.T) {
	b := newBench(t, Config{}, 1, 64<<20)
	b.must(b.CreateVolume(ctx, "small", 1<<20, VolumeOptions{RecordSize: 4 << 10}))
	var text bytes.Buffer
	if _, err := b.DumpThin(ctx, &text, nil, "small"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a volume of 4K records: %v", err)
	}
	if _, err := b.DumpThin(ctx, &text, nil, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no volume: %v", err)
	}
	name := func(id uint32) string { return fmt.Sprintf("dev%d", id) }
	const short = `<superblock uuid="" time="0" transaction="0" data_block_size="128" nr_data_blocks="9">
<device dev_id="1" mapped_blocks="1" transaction="0" creation_time="0" snap_time="0">
<single_mapping origin_block="0" data_block="7" time="0"/></device></superblock>`
	before := b.Volumes()
	if err := b.RestoreThin(ctx, strings.NewReader(short), sparse{}, name); !errors.Is(err, ErrDamaged) {
		t.Errorf("a block beyond the data: %v", err)
	}
	if !reflect.DeepEqual(b.Volumes(), before) {
		t.Error("a volume that is not whole stays")
	}
	if err := b.RestoreThin(ctx, strings.NewReader("<nothing/>"), sparse{}, name); err == nil {
		t.Error("no thin metadata was taken")
	}
	if err := b.RestoreThin(ctx, strings.NewReader(strings.Replace(short, `"128"`, `"96"`, 1)), sparse{}, name); !errors.Is(err, ErrInvalid) {
		t.Errorf("blocks of 48K: %v", err)
	}
	b.clean(b.checked())
}
