package driverbench

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
)

// The rows of the report.
const (
	rowCreate          = "create and mount a container"
	rowDelete          = "unmount and remove it"
	rowFirstSmall      = "first write to a small file"
	rowFirstBig        = "first write to a big file"
	rowDeepCreate      = "deep image: create and mount"
	rowDeepWalk        = "deep image: stat all, first time"
	rowDeepWalkAgain   = "deep image: stat all, again"
	rowWalkAgain       = "stat the small files, again"
	rowSmallFiles      = "make small files"
	rowRemoveSmall     = "remove them"
	rowSequentialWrite = "write a file"
	rowSequentialRead  = "read it again"
	rowRandom          = "4 KiB at random, fsync each"
	rowMany            = "containers of one image: create and mount"
	rowManyDisk        = "their space"
	rowManyInodes      = "their inodes"
	rowManyCache       = "their page cache"
	rowManyDelete      = "unmount and remove them"
)

// A workload measures a value for each of its rows.
type workload struct {
	rows []Row
	run  func(b *bench, s *subject) ([]float64, error)
}

var workloads = []workload{
	{[]Row{
		{Name: rowCreate, Help: "a writable layer over the image, and its mount", Unit: Seconds},
		{Name: rowDelete, Help: "of a container that was not written to", Unit: Seconds},
	}, func(b *bench, s *subject) ([]float64, error) { return s.createAndRemove(b, imageLayer) }},
	{[]Row{
		{Name: rowFirstSmall, Help: "a byte appended to a file of 4 KiB of the image, the mean of 16", Unit: Seconds},
		{Name: rowFirstBig, Help: "a byte appended to the image's largest file", Unit: Seconds},
	}, firstWrites},
	{[]Row{
		{Name: rowDeepCreate, Help: "a writable layer over the image of many layers, and its mount", Unit: Seconds},
		{Name: rowDeepWalk, Help: "every file looked at, nothing of the mount in the caches", Unit: Seconds},
		{Name: rowDeepWalkAgain, Help: "the same once more", Unit: Seconds},
	}, deepImage},
	{[]Row{
		{Name: rowWalkAgain, Help: "every small file of the image looked at, for the second time", Unit: Seconds},
		{Name: rowSmallFiles, Help: "files of 4 KiB, and the filesystem synced", Unit: Seconds},
		{Name: rowRemoveSmall, Help: "all of them", Unit: Seconds},
	}, smallFiles},
	{[]Row{
		{Name: rowSequentialWrite, Help: "in blocks of 1 MiB, with an fsync at the end", Unit: Seconds},
		{Name: rowSequentialRead, Help: "in blocks of 1 MiB, from the caches where they have it", Unit: Seconds},
		{Name: rowRandom, Help: "within that file, the mean of one", Unit: Seconds},
	}, largeFile},
	{[]Row{
		{Name: rowMany, Help: "all, one after the other", Unit: Seconds},
		{Name: rowManyDisk, Help: "what the filesystem has less, for all, before anything is written", Unit: Bytes},
		{Name: rowManyInodes, Help: "what the filesystem has less of them, for all", Unit: Files},
		{Name: rowManyCache, Help: "memory that the cache grows by when all read one file of the image", Unit: Bytes},
		{Name: rowManyDelete, Help: "all, one after the other", Unit: Seconds},
	}, manyContainers},
}

// container makes one and returns its id and where it is mounted.
func (s *subject) container(b *bench, parent string) (id, at string, err error) {
	s.n++
	id = fmt.Sprintf("c%d", s.n)
	if err := s.d.Create(b.ctx, id, parent, driver.CreateOptions{}); err != nil {
		return id, "", err
	}
	at, err = s.d.Mount(b.ctx, id, driver.MountOptions{})
	return id, at, err
}

func (s *subject) discard(b *bench, id string) error {
	if err := s.d.Unmount(b.ctx, id, "", false); err != nil {
		return err
	}
	return s.d.Remove(b.ctx, id)
}

// within runs f in a container that goes then.
func (s *subject) within(b *bench, parent string, f func(at string) error) error {
	id, at, err := s.container(b, parent)
	if err == nil {
		err = f(at)
	}
	return errors.Join(err, s.discard(b, id))
}

// timed returns the seconds that f takes.
func timed(f func() error) (float64, error) {
	began := time.Now()
	err := f()
	return time.Since(began).Seconds(), err
}

func (s *subject) createAndRemove(b *bench, parent string) ([]float64, error) {
	var id string
	created, err := timed(func() (err error) {
		id, _, err = s.container(b, parent)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.discard(b, id))
	}
	removed, err := timed(func() error { return s.discard(b, id) })
	return []float64{created, removed}, err
}

func appendByte(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte{1})
	return errors.Join(err, f.Close())
}

func firstWrites(b *bench, s *subject) ([]float64, error) {
	values := make([]float64, 2)
	return values, s.within(b, imageLayer, func(at string) (err error) {
		n := min(16, b.cfg.Sizes.Small)
		values[0], err = timed(func() error {
			for i := range n {
				if err := appendByte(filepath.Join(at, smallFile(i))); err != nil {
					return err
				}
			}
			return nil
		})
		values[0] /= float64(n)
		if err == nil {
			values[1], err = timed(func() error { return appendByte(filepath.Join(at, bigFile)) })
		}
		return err
	})
}

func walk(dir string) error {
	return filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = e.Info()
		return err
	})
}

func deepImage(b *bench, s *subject) ([]float64, error) {
	values := make([]float64, 3)
	var id, at string
	var err error
	values[0], err = timed(func() (err error) {
		id, at, err = s.container(b, fmt.Sprint(deepLayer, b.cfg.Sizes.Depth-1))
		return err
	})
	for i := 1; i < 3 && err == nil; i++ {
		values[i], err = timed(func() error { return walk(at) })
	}
	return values, errors.Join(err, s.discard(b, id))
}

func smallFiles(b *bench, s *subject) ([]float64, error) {
	values := make([]float64, 3)
	data := make([]byte, 4096)
	return values, s.within(b, imageLayer, func(at string) (err error) {
		if err = walk(filepath.Join(at, smallDir)); err != nil {
			return err
		}
		if values[0], err = timed(func() error { return walk(filepath.Join(at, smallDir)) }); err != nil {
			return err
		}
		made := filepath.Join(at, "made")
		values[1], err = timed(func() error {
			for i := range b.cfg.Sizes.Small {
				dir := filepath.Join(made, fmt.Sprint(i%64))
				if i < 64 {
					if err := os.MkdirAll(dir, 0o755); err != nil {
						return err
					}
				}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o644); err != nil {
					return err
				}
			}
			return syncfs(at)
		})
		if err == nil {
			values[2], err = timed(func() error { return os.RemoveAll(made) })
		}
		return err
	})
}

func syncfs(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

func largeFile(b *bench, s *subject) ([]float64, error) {
	values := make([]float64, 3)
	random := rand.NewChaCha8([32]byte{2})
	block := make([]byte, 1<<20)
	_, _ = random.Read(block) // never fails
	size := b.cfg.Sizes.Sequential
	return values, s.within(b, imageLayer, func(at string) error {
		f, err := os.OpenFile(filepath.Join(at, "large"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		values[0], err = timed(func() error {
			for off := int64(0); off < size; off += int64(len(block)) {
				if _, err := f.WriteAt(block, off); err != nil {
					return err
				}
			}
			return f.Sync()
		})
		if err != nil {
			return err
		}
		values[1], err = timed(func() error {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, block)
			return err
		})
		if err != nil {
			return err
		}
		values[2], err = timed(func() error {
			for range b.cfg.Sizes.Random {
				if _, err := f.WriteAt(block[:4096], int64(random.Uint64()%uint64(size/4096))*4096); err != nil {
					return err
				}
				if err := f.Sync(); err != nil {
					return err
				}
			}
			return nil
		})
		values[2] /= float64(b.cfg.Sizes.Random)
		return err
	})
}

func manyContainers(b *bench, s *subject) (values []float64, err error) {
	values = make([]float64, 5)
	var ids, places []string
	defer func() {
		gone, e := timed(func() (err error) {
			for _, id := range ids {
				err = errors.Join(err, s.discard(b, id))
			}
			return err
		})
		values[4], err = gone, errors.Join(err, e)
	}()
	before, err := s.space()
	if err != nil {
		return values, err
	}
	values[0], err = timed(func() error {
		for range b.cfg.Sizes.Containers {
			id, at, err := s.container(b, imageLayer)
			ids, places = append(ids, id), append(places, at)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return values, err
	}
	after, err := s.space()
	if err != nil {
		return values, err
	}
	values[1], values[2] = max(0, float64(after.bytes-before.bytes)), max(0, float64(after.inodes-before.inodes))
	values[3], err = cacheGrowth(!b.cfg.Alone, func() error {
		for _, at := range places {
			f, err := os.Open(filepath.Join(at, sharedFile))
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	return values, err
}
