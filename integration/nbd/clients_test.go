//go:build integration

package nbd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/nbd"
	"github.com/laminafs/lamina/backends/nbd/fileblock"
	"github.com/laminafs/lamina/backends/nbd/memblock"
)

const mib = 1 << 20

// devices runs a test with a device in memory and with a file.
func devices(t *testing.T, size int64, test func(t *testing.T, b nbd.Block)) {
	t.Run("memory", func(t *testing.T) { test(t, memblock.New(size)) })
	t.Run("file", func(t *testing.T) {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		b, err := fileblock.New(f)
		if err != nil {
			t.Fatal(err)
		}
		test(t, b)
	})
}

// content returns all bytes of a device.
func content(t *testing.T, b nbd.Block) []byte {
	t.Helper()
	all := make([]byte, b.Size())
	if n, err := b.ReadAt(all, 0); n < len(all) {
		t.Fatal(err)
	}
	return all
}

// sparse returns an image with random data in every other MiB, zeros between.
func sparse(size int) []byte {
	image := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	for off := 0; off < size; off += 2 * mib {
		rng.Read(image[off:min(off+mib, size)])
	}
	return image
}

// readOnly is a device that may not be changed, as a snapshot.
type readOnly struct{ nbd.Block }

func (readOnly) ReadOnly() bool  { return true }
func (readOnly) RecordSize() int { return 65536 }

func TestNbdinfoListsExports(t *testing.T) {
	need(t, "nbdinfo")
	s := serve(t, nbd.Map{"": memblock.New(mib), "disk": memblock.New(10 << 30), "päth/with space": readOnly{memblock.New(512)}})
	var got struct {
		Protocol string
		Exports  []struct {
			Name               string   `json:"export-name"`
			Size               int64    `json:"export-size"`
			Contexts           []string `json:"contexts"`
			ReadOnly           bool     `json:"is_read_only"`
			FUA                bool     `json:"can_fua"`
			Flush              bool     `json:"can_flush"`
			Trim               bool     `json:"can_trim"`
			Zero               bool     `json:"can_zero"`
			FastZero           bool     `json:"can_fast_zero"`
			MultiConn          bool     `json:"can_multi_conn"`
			Cache              bool     `json:"can_cache"`
			DF                 bool     `json:"can_df"`
			BlockSizePreferred int64    `json:"block_size_preferred"`
			BlockSizeMaximum   int64    `json:"block_size_maximum"`
		}
	}
	text := ok(t, "nbdinfo", "--list", "--json", s.uri(""))
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	var lines []string
	for _, x := range got.Exports {
		if !x.FUA || !x.Flush || !x.MultiConn || !x.Cache || !x.DF || x.BlockSizeMaximum != 32*mib {
			t.Errorf("%q: %+v", x.Name, x)
		}
		lines = append(lines, fmt.Sprintf("%q %d ro=%v trim=%v zero=%v fast=%v preferred=%d %v",
			x.Name, x.Size, x.ReadOnly, x.Trim, x.Zero, x.FastZero, x.BlockSizePreferred, x.Contexts))
	}
	want := `"" 1048576 ro=false trim=true zero=true fast=true preferred=4096 [base:allocation]
"disk" 10737418240 ro=false trim=true zero=true fast=true preferred=4096 [base:allocation]
"päth/with space" 512 ro=true trim=false zero=false fast=false preferred=65536 []`
	if text := strings.Join(lines, "\n"); text != want || got.Protocol != "newstyle-fixed" {
		t.Errorf("%s\n%s\nwant\n%s", got.Protocol, text, want)
	}
	if out, err := try(nil, "nbdinfo", s.uri("other")); err == nil || !strings.Contains(out, "No such file") {
		t.Errorf("an export that is not there: %v, %s", err, out)
	}
}

func TestNbdcopyThereAndBack(t *testing.T) {
	need(t, "nbdcopy")
	image := sparse(33*mib + 512)
	devices(t, int64(len(image)), func(t *testing.T, b nbd.Block) {
		s := serve(t, nbd.Map{"disk": b})
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		if err := os.WriteFile(from, image, 0o600); err != nil {
			t.Fatal(err)
		}
		ok(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", from, s.uri("disk"))
		if !bytes.Equal(content(t, b), image) {
			t.Error("the device differs from the file it was copied from")
		}
		ok(t, "nbdcopy", "--synchronous", s.uri("disk"), to)
		if back, err := os.ReadFile(to); err != nil || !bytes.Equal(back, image) {
			t.Errorf("the file differs from the device it was copied from: %v", err)
		}
		ok(t, "nbdcopy", s.uri("disk"), s.uri("disk")) // reads and writes at the same places
		if !bytes.Equal(content(t, b), image) {
			t.Error("the device differs after it was copied to itself")
		}
	})
}

func TestQemuImgConvertsAndCompares(t *testing.T) {
	need(t, "qemu-img")
	image := sparse(17 * mib)
	devices(t, int64(len(image)), func(t *testing.T, b nbd.Block) {
		s := serve(t, nbd.Map{"disk": b})
		dir := t.TempDir()
		raw, qcow2, back := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2"), filepath.Join(dir, "back")
		if err := os.WriteFile(raw, image, 0o600); err != nil {
			t.Fatal(err)
		}
		// What was there before must not show through the holes.
		if _, err := b.WriteAt(bytes.Repeat([]byte{0xaa}, len(image)), 0); err != nil {
			t.Fatal(err)
		}
		ok(t, "qemu-img", "convert", "-O", "qcow2", raw, qcow2)
		ok(t, "qemu-img", "convert", "-n", "-W", "-m", "16", "-O", "raw", qcow2, s.uri("disk"))
		if !bytes.Equal(content(t, b), image) {
			t.Error("the device differs from the image that was converted into it")
		}
		ok(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow2, s.uri("disk"))
		ok(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", s.uri("disk"), back)
		ok(t, "qemu-img", "compare", qcow2, back)
		if _, err := b.WriteAt([]byte{^image[5]}, 5); err != nil {
			t.Fatal(err)
		}
		if out, err := try(nil, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", qcow2, s.uri("disk")); err == nil {
			t.Errorf("a different byte was not noticed: %s", out)
		}
	})
}

func TestMapsShowHoles(t *testing.T) {
	need(t, "qemu-img", "nbdinfo")
	devices(t, 8*mib, func(t *testing.T, b nbd.Block) {
		for _, off := range []int64{0, 5 * mib} {
			if _, err := b.WriteAt(bytes.Repeat([]byte{1}, mib), off); err != nil {
				t.Fatal(err)
			}
		}
		s := serve(t, nbd.Map{"disk": b})
		type extent struct {
			Start, Offset, Length int64
			Data, Zero            bool
			Type                  int
		}
		extents := func(argv ...string) []extent {
			var got []extent
			text := ok(t, argv...)
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatalf("%v in %s", err, text)
			}
			return got
		}
		want := []int64{0, mib, 5 * mib, 6 * mib}
		got := extents("qemu-img", "map", "-f", "raw", "--output=json", s.uri("disk"))
		if len(got) != 4 {
			t.Fatalf("qemu-img map: %+v", got)
		}
		for i, e := range got {
			if e.Start != want[i] || e.Data != (i%2 == 0) || e.Zero != (i%2 == 1) {
				t.Errorf("qemu-img map: extent %d is %+v", i, e)
			}
		}
		got = extents("nbdinfo", "--map", "--json", s.uri("disk"))
		if len(got) != 4 {
			t.Fatalf("nbdinfo --map: %+v", got)
		}
		for i, e := range got {
			if e.Offset != want[i] || e.Type != 3*(i%2) {
				t.Errorf("nbdinfo --map: extent %d is %+v", i, e)
			}
		}
	})
}

// qemuIO runs commands of qemu-io on an export, and returns what it printed.
// cache is a mode of qemu-io -t.
func qemuIO(target, cache string, commands ...string) (string, error) {
	return try(strings.NewReader(strings.Join(commands, "\n")+"\n"), "qemu-io", "-f", "raw", "-t", cache, "-d", "unmap", target)
}

func TestQemuIOFlushTrimZeroesAndFUA(t *testing.T) {
	need(t, "qemu-io")
	b := memblock.New(8 * mib)
	target := serve(t, nbd.Map{"disk": b}).uri("disk")
	run := func(commands ...string) {
		t.Helper()
		if out, err := qemuIO(target, "writeback", commands...); err != nil || strings.Contains(out, "failed") {
			t.Fatalf("%v: %v\n%s", commands, err, out)
		}
	}
	allocated := func(off int64, want bool) {
		t.Helper()
		if _, hole, err := b.Allocated(off, 1); err != nil || hole == want {
			t.Errorf("at %d: hole %v, %v", off, hole, err)
		}
	}
	flushes := func(why string, do func()) {
		t.Helper()
		before := b.Flushes()
		do()
		if b.Flushes() == before || b.Unflushed() != 0 {
			t.Errorf("%s: %d flushes, %d bytes not flushed", why, b.Flushes()-before, b.Unflushed())
		}
	}
	flushes("FUA", func() { run("write -f -P 1 0 1M", "read -P 1 0 1M") })
	flushes("flush", func() { run("write -P 2 1M 1M", "flush") })
	run("write -P 3 2M 2M", "discard 2M 1M", "read -P 0 2M 1M", "read -P 3 3M 1M")
	allocated(2*mib, false)
	allocated(3*mib, true)
	run("write -P 4 4M 3M", "write -z -u 4M 1M", "write -z 5M 1M", "read -P 0 4M 2M", "read -P 4 6M 1M")
	allocated(4*mib, false) // with unmap
	allocated(5*mib, true)  // without: NO_HOLE
	flushes("zeroes with FUA", func() { run("write -z -u -f 0 1M", "read -P 0 0 1M") })
	run("write -P 5 4097 1001", "read -P 5 4097 1001") // any alignment
}

func TestQemuIOIsRefusedWhatIsNotAllowed(t *testing.T) {
	need(t, "qemu-io")
	s := serve(t, nbd.Map{"disk": memblock.New(mib), "snapshot": readOnly{memblock.New(mib)}})
	for _, tc := range []struct{ target, command string }{
		{s.uri("disk"), "read 1M 512"},
		{s.uri("disk"), "write 1048000 1024"},
		{s.uri("snapshot"), "write 0 512"},
	} {
		if out, err := qemuIO(tc.target, "writeback", tc.command); err == nil && !strings.Contains(out, "failed") {
			t.Errorf("%s on %s: %s", tc.command, tc.target, out)
		}
	}
	if out, err := try(strings.NewReader("read -P 0 0 1M\n"), "qemu-io", "-r", "-f", "raw", s.uri("snapshot")); err != nil {
		t.Errorf("read of a read-only export: %v: %s", err, out)
	}
}

func TestQemuIORandomOperationsAgainstAModel(t *testing.T) {
	need(t, "qemu-io")
	const size = 4 * mib
	devices(t, size, func(t *testing.T, b nbd.Block) {
		target := serve(t, nbd.Map{"disk": b}).uri("disk")
		model := make([]byte, size)
		rng := rand.New(rand.NewPCG(5, 6))
		var script []string
		for range 2000 {
			off := rng.IntN(size - 1)
			n := 1 + rng.IntN(min(100000, size-off))
			pattern := byte(1 + rng.IntN(255))
			part := model[off : off+n]
			switch rng.IntN(5) {
			case 0:
				clear(part)
				script = append(script, fmt.Sprintf("write -z -u %d %d", off, n))
			case 1:
				clear(part)
				script = append(script, fmt.Sprintf("write -z -f %d %d", off, n))
			case 2:
				// A discard leaves what it likes, until it is overwritten.
				script = append(script, fmt.Sprintf("discard %d %d", off, n))
				fallthrough
			default:
				copy(part, bytes.Repeat([]byte{pattern}, n))
				script = append(script, fmt.Sprintf("write -P %d %d %d", pattern, off, n))
			}
			// Read a run of equal bytes that begins somewhere else.
			at := rng.IntN(size)
			run := 1
			for at+run < size && run < 50000 && model[at+run] == model[at] {
				run++
			}
			script = append(script, fmt.Sprintf("read -P %d %d %d", model[at], at, run))
		}
		out, err := qemuIO(target, "none", script...)
		if err != nil || strings.Contains(out, "failed") {
			t.Fatalf("%v\n%.2000s", err, out)
		}
		if !bytes.Equal(content(t, b), model) {
			t.Error("the device differs from the model")
		}
	})
}
