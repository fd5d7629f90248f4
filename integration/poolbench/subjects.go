package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/blocks"
	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/blockpool"
)

// A disk is what workloads write to and read from.
type disk interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	flush() error
	close() error
}

// A snapshotter is a disk that keeps what it was.
type snapshotter interface{ snapshot(name string) error }

func snapshotName(i int) string { return "s" + strconv.Itoa(i) }

// A subject makes disks in a directory.
type subject struct {
	name string
	make func(dir string, o options) (disk, error)
}

var subjects = []subject{
	{"bare", func(dir string, o options) (disk, error) { return openFile(filepath.Join(dir, "bare"), o.size) }},
	{"pool", pool(16 << 10)},
	{"pool-64K", pool(64 << 10)},
	{"pool-fuse", poolFUSE},
	{"qcow2-fuse", qcow2},
	{"pool-deep", poolDeep},
	{"btrfs", btrfs},
	{"bbolt", func(dir string, o options) (disk, error) { return openBolt(dir) }},
}

// file is a bare file, or one that somebody exports.
type file struct {
	*os.File
	closers []func() error // run from the last to the first
}

func openFile(name string, size int64) (*file, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.Size() < size {
		if err := f.Truncate(size); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &file{File: f}, nil
}

func (f *file) flush() error { return unix.Fdatasync(int(f.Fd())) }

func (f *file) close() error {
	err := f.File.Close()
	for i := len(f.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, f.closers[i]())
	}
	return err
}

// volume is a volume through the library.
type volume struct {
	*blockpool.Volume
	pool *blockpool.Pool
}

func openPool(dir string, o options, record int64) (*blockpool.Pool, error) {
	err := blockpool.Create(blockpool.CreateOptions{
		Config:   blockpool.Config{Name: "bench", RecordSize: record},
		Devices:  []blockpool.DeviceSpec{{Path: filepath.Join(dir, "data-0.img"), Size: 4*o.size + 1<<30}},
		Metadata: []string{blockpool.ReplicaName(dir, 0)},
	})
	if err != nil {
		return nil, err
	}
	p, err := blockpool.Open(dir, blockpool.OpenOptions{})
	if err != nil {
		return nil, err
	}
	if err := p.CreateVolume(context.Background(), "v", max(o.size, 16<<20), blockpool.VolumeOptions{}); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func pool(record int64) func(string, options) (disk, error) {
	return func(dir string, o options) (disk, error) {
		p, err := openPool(dir, o, record)
		if err != nil {
			return nil, err
		}
		v, err := p.Open("v")
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		return &volume{v, p}, nil
	}
}

func (v *volume) flush() error { return v.Flush(context.Background()) }
func (v *volume) close() error { return errors.Join(v.Volume.Close(), v.pool.Close()) }
func (v *volume) snapshot(name string) error {
	return v.pool.Snapshot(context.Background(), "v", "v@"+name)
}

// poolDeep is a volume under a thousand snapshots, with a change between them.
func poolDeep(dir string, o options) (disk, error) {
	d, err := pool(16<<10)(dir, o)
	if err != nil {
		return nil, err
	}
	for i := range 1000 {
		if _, err := d.WriteAt(content(4096, uint64(i)), int64(i)*4096%o.size); err != nil {
			return nil, errors.Join(err, d.close())
		}
		if err := d.(snapshotter).snapshot(snapshotName(i)); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

// poolFUSE is a volume as a file in a FUSE mount.
func poolFUSE(dir string, o options) (disk, error) {
	p, err := openPool(dir, o, 0)
	if err != nil {
		return nil, err
	}
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	m, err := serve.MountVolumes(serve.VolumesConfig{Volumes: blocks.Volumes{Pool: p}, Target: mnt, Log: log.Default()})
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	f, err := openFile(filepath.Join(mnt, "v"), 0)
	if err != nil {
		return nil, errors.Join(err, m.Unmount(true), m.Wait(), p.Close())
	}
	f.closers = []func() error{p.Close, m.Wait, func() error { return m.Unmount(false) }}
	return &fuseVolume{f, p}, nil
}

type fuseVolume struct {
	*file
	pool *blockpool.Pool
}

func (v *fuseVolume) snapshot(name string) error {
	return v.pool.Snapshot(context.Background(), "v", "v@"+name)
}

// boltDisk is a bbolt file: the price of one commit.
type boltDisk struct {
	db *bolt.DB
	n  int
}

func openBolt(dir string) (*boltDisk, error) {
	db, err := bolt.Open(filepath.Join(dir, "bare.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return nil, err
	}
	return &boltDisk{db: db}, nil
}

func (b *boltDisk) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (b *boltDisk) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (b *boltDisk) flush() error                           { return nil }
func (b *boltDisk) close() error                           { return b.db.Close() }

// snapshot commits as little as a snapshot has to: one value.
func (b *boltDisk) snapshot(name string) error {
	return b.db.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
		if err != nil {
			return err
		}
		return bucket.Put([]byte(name), make([]byte, 200))
	})
}

// command runs a program to its end.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// waitFor waits until ready says so.
func waitFor(what string, ready func() bool) error {
	for range 500 {
		if ready() {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s is not ready after 5 s", what)
}
