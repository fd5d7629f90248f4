package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

var ctx = context.Background()

// volumeSize is what the kernel reads many times, by an emulated processor.
const volumeSize = 8 << 20

// A pool of lamina's becomes one of dm-thin by dump and thin_restore: the kernel
// takes it, its devices hold the same bytes, and so does a snapshot of one.
func TestThinPoolOfADumpIsTheKernels(t *testing.T) {
	need(t, "/dev/mapper/control", "dmsetup", "losetup", "thin_restore", "thin_check", "thin_dump")
	dir := t.TempDir()
	p := newPool(t, dir, "ours")
	must(t, p.CreateVolume(ctx, "base", volumeSize, blockpool.VolumeOptions{}))
	rng := rand.New(rand.NewPCG(1, 2))
	scribble(t, p, "base", rng)
	for i, from := range []string{"base", "v0", "base", "v1", "v1"} {
		name := fmt.Sprintf("v%d", i)
		must(t, p.Clone(ctx, from, name))
		scribble(t, p, name, rng)
		must(t, p.Snapshot(ctx, name, name+"@then"))
		scribble(t, p, name, rng)
	}
	must(t, p.Sync(ctx))

	xml, data, meta := filepath.Join(dir, "meta.xml"), sparse(t, dir, "data", 1<<30), sparse(t, dir, "meta", 64<<20)
	devices := dump(t, p, xml, data)
	ok(t, "thin_restore", "-q", "-i", xml, "-o", meta)
	ok(t, "thin_check", "-q", meta)

	pool := startPool(t, meta, data)
	want := map[string]string{}
	for _, d := range devices {
		want[d.Name] = sum(t, p, d.Name)
		dev := pool.thin(d.Name, d.ID, d.Size)
		if got := sumFile(t, dev); got != want[d.Name] {
			t.Errorf("%s: the kernel reads other bytes than were written", d.Name)
		}
	}
	// The kernel snapshots what was restored.
	pool.remove("v1")
	ok(t, "dmsetup", "message", pool.name, "0", "create_snap 1000 "+fmt.Sprint(idOf(devices, "v1")))
	if got := sumFile(t, pool.thin("snap", 1000, volumeSize)); got != want["v1"] {
		t.Error("a snapshot that the kernel made of a restored device differs from it")
	}
}

// A filesystem of the kernel's on a volume survives the way into dm-thin.
func TestThinPoolOfADumpHasItsFilesystems(t *testing.T) {
	need(t, "/dev/mapper/control", "dmsetup", "losetup", "thin_restore", "mkfs.ext4", "e2fsck")
	dir := t.TempDir()
	image := sparse(t, dir, "image", 64<<20)
	ok(t, "mkfs.ext4", "-q", "-F", image)
	p := newPool(t, dir, "ours")
	must(t, p.CreateVolume(ctx, "fs", 64<<20, blockpool.VolumeOptions{}))
	v, err := p.Open("fs")
	must(t, err)
	content, err := os.ReadFile(image)
	must(t, err)
	_, err = v.WriteAt(content, 0)
	must(t, err)
	must(t, v.Close())
	must(t, p.Clone(ctx, "fs", "clone"))
	must(t, p.Sync(ctx))
	xml, data, meta := filepath.Join(dir, "meta.xml"), sparse(t, dir, "data", 1<<30), sparse(t, dir, "meta", 64<<20)
	devices := dump(t, p, xml, data)
	ok(t, "thin_restore", "-q", "-i", xml, "-o", meta)
	pool := startPool(t, meta, data)
	defer pool.stop()
	at := filepath.Join(dir, "mnt")
	for _, name := range []string{"fs", "clone"} {
		dev := pool.thin(name, idOf(devices, name), 64<<20)
		mounted(t, dev, at, "ext4")
		must(t, os.WriteFile(at+"/whose", []byte(name), 0o644))
		unmount(t, at)
		ok(t, "e2fsck", "-fn", dev)
	}
	for _, name := range []string{"fs", "clone"} {
		mounted(t, pool.dev(name), at, "ext4")
		if got, err := os.ReadFile(at + "/whose"); err != nil || string(got) != name {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		unmount(t, at)
	}
}

func newPool(t *testing.T, dir, name string) *blockpool.Pool {
	t.Helper()
	c := blockpool.DevicemapperConfig(name)
	c.MetadataSize = 256 << 20
	meta := filepath.Join(dir, name+".db")
	must(t, blockpool.Create(blockpool.CreateOptions{
		Config: c, Metadata: []string{meta}, Devices: []blockpool.DeviceSpec{{Path: filepath.Join(dir, name+".img"), Size: 1 << 30}},
	}))
	p, err := blockpool.Open(meta, blockpool.OpenOptions{})
	must(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// scribble changes a volume here and there.
func scribble(t *testing.T, p *blockpool.Pool, name string, rng *rand.Rand) {
	t.Helper()
	v, err := p.Open(name)
	must(t, err)
	for range 12 {
		buf := make([]byte, 1+rng.IntN(200<<10))
		fill(buf, rng)
		_, err := v.WriteAt(buf, rng.Int64N(v.Size()-200<<10))
		must(t, err)
	}
	must(t, v.Discard(ctx, rng.Int64N(volumeSize/2), 1<<20))
	must(t, v.Close())
}

func fill(buf []byte, rng *rand.Rand) {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rng.Uint32())
	}
	rand.NewChaCha8(seed).Read(buf) // never fails
}

func dump(t *testing.T, p *blockpool.Pool, xml, data string) []blockpool.ThinDevice {
	t.Helper()
	to, err := os.OpenFile(data, os.O_RDWR, 0)
	must(t, err)
	defer to.Close()
	var text bytes.Buffer
	devices, err := p.DumpThin(ctx, &text, to)
	must(t, err)
	must(t, os.WriteFile(xml, text.Bytes(), 0o644))
	return devices
}

func idOf(devices []blockpool.ThinDevice, name string) uint32 {
	for _, d := range devices {
		if d.Name == name {
			return d.ID
		}
	}
	return 0
}

func sum(t *testing.T, p *blockpool.Pool, name string) string {
	t.Helper()
	v, err := p.Open(name)
	must(t, err)
	defer v.Close()
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(v, 0, v.Size()))
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

func sumFile(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

func sparse(t *testing.T, dir, name string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Close())
	return path
}

// A kernelPool is a pool of dm-thin over two files.
type kernelPool struct {
	t        *testing.T
	name     string
	loops    []string
	thins    map[string]string // names of devices
	made     bool              // the kernel has it
	hasEnded bool
}

func startPool(t *testing.T, meta, data string) *kernelPool {
	t.Helper()
	k := &kernelPool{t: t, name: fmt.Sprintf("pool%d", time.Now().UnixNano()), thins: map[string]string{}}
	t.Cleanup(k.stop)
	for _, f := range []string{meta, data} {
		k.loops = append(k.loops, ok(t, "losetup", "--find", "--show", f))
	}
	ok(t, "dmsetup", "create", k.name, "--table", fmt.Sprintf("0 %d thin-pool %s %s 128 0", 1<<30/512, k.loops[0], k.loops[1]))
	k.made = true
	return k
}

// dev returns the node of a device that was started.
func (k *kernelPool) dev(name string) string { return "/dev/mapper/" + k.thins[name] }

// thin starts a device.
func (k *kernelPool) thin(name string, id uint32, size int64) string {
	k.t.Helper()
	dm := fmt.Sprintf("%s-%d", k.name, id)
	ok(k.t, "dmsetup", "create", dm, "--table", fmt.Sprintf("0 %d thin /dev/mapper/%s %d", size/512, k.name, id))
	k.thins[name] = dm
	return k.dev(name)
}

func (k *kernelPool) remove(name string) {
	k.t.Helper()
	ok(k.t, "dmsetup", "remove", "--retry", k.thins[name])
	delete(k.thins, name)
}

func (k *kernelPool) stop() {
	if k.hasEnded {
		return
	}
	k.hasEnded = true
	for name := range k.thins {
		k.remove(name)
	}
	if k.made {
		ok(k.t, "dmsetup", "remove", "--retry", k.name)
	}
	for _, l := range k.loops {
		ok(k.t, "losetup", "-d", l)
	}
	unix.Sync()
}
