//go:build integration

package volumes

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var measure = flag.Int("measure", 0, "compare a loop device over a volume with one over a bare file, so many times in turn")

// TestSpeed tells what the way through the server costs: the same ext4 on a loop
// device over a volume and over the bare file, in turn. It needs 2 GiB in /var/tmp:
//
//	go test -tags integration -run TestSpeed -v ./integration/volumes -measure 5
func TestSpeed(t *testing.T) {
	if *measure == 0 {
		t.Skip("it measures, and takes a minute; ask for it by -measure 5")
	}
	need(t, "mkfs.ext4")
	s := start(t, 0)
	bare := filepath.Join(s.files, "bare")
	if err := os.WriteFile(bare, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(bare, 2<<30); err != nil {
		t.Fatal(err)
	}
	subjects := []string{bare, s.create("vol", 2<<30)}
	var dirs []string
	for i, file := range subjects {
		dev := s.loop(file)
		s.run(0, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", dev)
		dir := filepath.Join(s.files, fmt.Sprint("fs", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.run(0, "mount", dev, dir)
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		dirs = append(dirs, dir)
	}
	for _, w := range workloads {
		var took [2][]time.Duration
		var ratios []float64
		for range *measure {
			for i := range subjects {
				unix.Sync()
				begin := time.Now()
				if err := w.do(dirs[i]); err != nil {
					t.Fatalf("%s on %s: %v", w.name, subjects[i], err)
				}
				took[i] = append(took[i], time.Since(begin))
				w.clean(dirs[i])
			}
			last := len(took[0]) - 1
			ratios = append(ratios, took[1][last].Seconds()/took[0][last].Seconds())
		}
		slices.Sort(ratios)
		for i := range took {
			slices.Sort(took[i])
		}
		mid := *measure / 2
		t.Logf("%-32s bare %8.3f s  volume %8.3f s  ratio %.2f (%.2f to %.2f)", w.name,
			took[0][mid].Seconds(), took[1][mid].Seconds(), ratios[mid], ratios[0], ratios[len(ratios)-1])
	}
}

type workload struct {
	name string
	do   func(dir string) error
}

// clean removes what a workload has made.
func (w workload) clean(dir string) {
	os.RemoveAll(filepath.Join(dir, "w"))
	unix.Sync()
}

var workloads = []workload{
	{"512 MiB write+fsync", func(dir string) error { return writeFile(filepath.Join(dir, "w"), 512, 1<<20, false) }},
	{"3,000 creates", func(dir string) error { return creates(filepath.Join(dir, "w"), 3000, false) }},
	{"3,000 creates, then sync", func(dir string) error { return creates(filepath.Join(dir, "w"), 3000, true) }},
	{"500 times 4 KiB write+fsync", func(dir string) error { return writeFile(filepath.Join(dir, "w"), 500, 4096, true) }},
}

func writeFile(name string, count, size int, syncEach bool) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, size)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for range count {
		if _, err := f.Write(buf); err != nil {
			return err
		}
		if syncEach {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

func creates(dir string, n int, sync bool) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0o600); err != nil {
			return err
		}
	}
	if !sync {
		return nil
	}
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return unix.Syncfs(d)
}
