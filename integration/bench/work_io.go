package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Workloads on the data of one large file.

const (
	megabyte = 1 << 20
	page     = 4 << 10
)

func seqWrite(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	return r.measure(func() error { return r.fill("new", r.scale.seqMB) })
}

// fill creates a file of so many megabytes in the mount and syncs it.
func (r *repetition) fill(name string, megabytes int) error {
	block := make([]byte, megabyte)
	for i := range block {
		block[i] = byte(i >> 8)
	}
	return withFile(r.path(name), os.O_CREATE|os.O_WRONLY, func(f *os.File) error {
		for range megabytes {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			if _, err := f.Write(block); err != nil {
				return err
			}
		}
		return f.Sync()
	})
}

// readBig reads the big lower file with the buffer of cat.
func (r *repetition) readBig() error {
	n, err := readFile(r.path("big"), make([]byte, 128<<10))
	if want := int64(r.scale.bigMB) * megabyte; err == nil && n != want {
		err = fmt.Errorf("read %d bytes of %d", n, want)
	}
	return err
}

func seqReadCold(r *repetition) error {
	if err := r.mountCold(); err != nil {
		return err
	}
	return r.measure(r.readBig)
}

func seqReadWarm(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.readBig(); err != nil {
		return err
	}
	return r.measure(r.readBig)
}

// blocks calls f with n offsets of pages in a file of so many megabytes, the same
// ones in each repetition.
func (r *repetition) blocks(n, megabytes int, f func(offset int64) error) error {
	rng := rand.New(rand.NewPCG(4, 5))
	for range n {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := f(rng.Int64N(int64(megabytes)*megabyte/page) * page); err != nil {
			return err
		}
	}
	return nil
}

func randRead(r *repetition) error {
	if err := r.mountCold(); err != nil {
		return err
	}
	buf := make([]byte, page)
	return withFile(r.path("big"), os.O_RDONLY, func(f *os.File) error {
		return r.measure(func() error {
			return r.blocks(r.scale.randReads, r.scale.bigMB, func(offset int64) error {
				_, err := f.ReadAt(buf, offset)
				return err
			})
		})
	})
}

// randWrite overwrites pages of a file that is in the upper, and syncs at the end.
func randWrite(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.fill("new", r.scale.randMB); err != nil {
		return err
	}
	buf := make([]byte, page)
	return withFile(r.path("new"), os.O_WRONLY, func(f *os.File) error {
		return r.measure(func() error {
			err := r.blocks(r.scale.randWrites, r.scale.randMB, func(offset int64) error {
				_, err := f.WriteAt(buf, offset)
				return err
			})
			if err != nil {
				return err
			}
			return f.Sync()
		})
	})
}

// syncWrite is what a database's log does.
func syncWrite(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	buf := make([]byte, page)
	return withFile(r.path("new"), os.O_CREATE|os.O_WRONLY, func(f *os.File) error {
		return r.measure(func() error {
			for range r.scale.syncWrites {
				if err := r.ctx.Err(); err != nil {
					return err
				}
				if _, err := f.Write(buf); err != nil {
					return err
				}
				if err := f.Sync(); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// mmapRead touches each page of the big lower file, or of its beginning, once.
// The layer below is in the page cache.
func mmapRead(r *repetition) error {
	size := min(r.scale.mmapMB, r.scale.bigMB) * megabyte
	below := filepath.Join(r.tree.layers[layerCount-1], "big")
	if _, err := readFile(below, make([]byte, megabyte)); err != nil {
		return err
	}
	if err := r.mount(); err != nil {
		return err
	}
	return withFile(r.path("big"), os.O_RDONLY, func(f *os.File) error {
		return r.measure(func() error {
			return mapped(f, size, unix.PROT_READ, func(data []byte) error {
				var sum byte
				for i := 0; i < size; i += page {
					sum += data[i]
				}
				runtime.KeepAlive(sum)
				return nil
			})
		})
	})
}

// mmapWrite dirties each page of a file in the upper once.
func mmapWrite(r *repetition) error {
	if err := r.mount(); err != nil {
		return err
	}
	if err := r.fill("new", r.scale.mmapMB); err != nil {
		return err
	}
	size := r.scale.mmapMB * megabyte
	return withFile(r.path("new"), os.O_RDWR, func(f *os.File) error {
		return r.measure(func() error {
			return mapped(f, size, unix.PROT_READ|unix.PROT_WRITE, func(data []byte) error {
				for i := 0; i < size; i += page {
					data[i] = 'm'
				}
				return unix.Msync(data, unix.MS_SYNC)
			})
		})
	})
}

// mapped calls f with the first size bytes of a file in memory. A server that
// ends or answers an error raises SIGBUS in f; that becomes an error as well.
func mapped(file *os.File, size, protection int, f func([]byte) error) (err error) {
	data, err := unix.Mmap(int(file.Fd()), 0, size, protection, unix.MAP_SHARED)
	if err != nil {
		return &os.PathError{Op: "mmap", Path: file.Name(), Err: err}
	}
	defer func() {
		if unmapErr := unix.Munmap(data); err == nil {
			err = unmapErr
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault, ok := recover().(runtime.Error); ok {
			err = fmt.Errorf("mmap %s: %w: %v", file.Name(), io.ErrUnexpectedEOF, fault)
		}
	}()
	return f(data)
}
