//go:build integration

package nbd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/laminafs/lamina/backends/nbd"
	"github.com/laminafs/lamina/backends/nbd/fileblock"
)

// benchSize is the size of the file that both servers serve, all of it data and
// in the page cache: what is compared is the way there.
const benchSize = 512 << 20

// BenchmarkAgainstQemuNbd runs each workload in turn on lamina's server and on
// qemu-nbd. The ratio is qemu-nbd's median time divided by lamina's: above 1
// lamina is faster.
func BenchmarkAgainstQemuNbd(b *testing.B) {
	need(b, "qemu-nbd", "qemu-img", "nbdcopy")
	ours := serve(b, nbd.Map{"disk": benchBlock(b)}).uri("disk")
	theirs := qemuNbd(b, benchFile(b).Name())
	// The step leads through the whole image, 4 KiB at a time, in no order that
	// a cache could foresee.
	scattered := func(target string, depth, count int, more ...string) []string {
		return append(append([]string{"qemu-img", "bench", "-f", "raw", "-t", "none", "-s", "4096",
			"-S", "37752832", "-d", fmt.Sprint(depth), "-c", fmt.Sprint(count)}, more...), target)
	}
	source := benchFile(b).Name()
	for _, w := range []struct {
		name string
		argv func(target string) []string
	}{
		{"sequential read", func(t string) []string { return []string{"nbdcopy", t, "null:"} }},
		{"sequential read, one connection", func(t string) []string { return []string{"nbdcopy", "--connections=1", t, "null:"} }},
		{"sequential write", func(t string) []string { return []string{"nbdcopy", source, t} }},
		{"random read 4K, depth 1", func(t string) []string { return scattered(t, 1, 20000) }},
		{"random read 4K, depth 32", func(t string) []string { return scattered(t, 32, 60000) }},
		{"random write 4K, depth 1", func(t string) []string { return scattered(t, 1, 20000, "-w") }},
		{"random write 4K, depth 32", func(t string) []string { return scattered(t, 32, 60000, "-w") }},
	} {
		b.Run(w.name, func(b *testing.B) {
			var our, their []time.Duration
			for b.Loop() {
				our = append(our, timed(b, w.argv(ours)))
				their = append(their, timed(b, w.argv(theirs)))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(our).Seconds()*1000, "ms")
			b.ReportMetric(median(their).Seconds()/median(our).Seconds(), "ratio")
		})
	}
}

func timed(b *testing.B, argv []string) time.Duration {
	b.Helper()
	start := time.Now()
	ok(b, argv...)
	return time.Since(start)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func benchFile(b *testing.B) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "disk.raw"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for off := int64(0); off < benchSize; off += int64(len(data)) {
		if _, err := f.WriteAt(data, off); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return f
}

func benchBlock(b *testing.B) nbd.Block {
	b.Helper()
	block, err := fileblock.New(benchFile(b))
	if err != nil {
		b.Fatal(err)
	}
	return block
}

// qemuNbd starts qemu-nbd on a raw file and returns what clients call it.
func qemuNbd(b *testing.B, file string) string {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "socket")
	cmd := exec.Command("qemu-nbd", "--format=raw", "--persistent", "--shared=8", "--socket="+socket, "--export-name=disk", file)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 100 {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return uri(socket, "disk")
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatalf("qemu-nbd does not listen on %s", socket)
	return ""
}
