//go:build integration

package datasets

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	exerciserSize = 600_000 // what a file has at most
	pageSize      = 4096
)

func number(env string, otherwise int) int {
	n, _ := strconv.Atoi(os.Getenv(env))
	return cmp.Or(n, otherwise)
}

// exercises does random operations to two files, by all the ways in which programs read
// and write: each byte must be the one that was written there last. LAMINA_FSX_OPS says
// how many operations, LAMINA_FSX_SEED which.
func exercises(dir string) error {
	seed := number("LAMINA_FSX_SEED", 1)
	x := &exerciser{rng: rand.New(rand.NewPCG(uint64(seed), 7))}
	for i := range x.files {
		if err := x.files[i].open(filepath.Join(dir, fmt.Sprint("x", i)), os.O_CREATE); err != nil {
			return err
		}
	}
	for i := range number("LAMINA_FSX_OPS", 1000) {
		err := x.step()
		if i%100 == 99 {
			err = errors.Join(err, x.compareAll())
		}
		if err != nil {
			return fmt.Errorf("seed %d, step %d: %w, after:\n%s", seed, i, err, strings.Join(x.done, "\n"))
		}
	}
	for i := range x.files {
		if err := errors.Join(x.files[i].reopen(true), x.files[i].compare(0, exerciserSize+1)); err != nil {
			return fmt.Errorf("seed %d, in the end: %w, after:\n%s", seed, err, strings.Join(x.done, "\n"))
		}
	}
	return nil
}

type exerciser struct {
	rng   *rand.Rand
	files [2]exercised
	done  []string // the last operations
}

// An exercised file is one with what it must have.
type exercised struct {
	*os.File
	want []byte
}

func (f *exercised) fd() int { return int(f.Fd()) }

func (f *exercised) open(name string, flags int) (err error) {
	f.File, err = os.OpenFile(name, os.O_RDWR|flags, 0o644)
	return err
}

// reopen closes a file and opens it again; with drop, what the kernel has cached of it
// goes.
func (f *exercised) reopen(drop bool) error {
	var failed error
	if drop {
		failed = errors.Join(f.Sync(), unix.Fadvise(f.fd(), 0, 0, unix.FADV_DONTNEED))
	}
	return errors.Join(failed, f.Close(), f.open(f.Name(), 0))
}

// resize has what a file must have end elsewhere.
func (f *exercised) resize(size int) {
	if size > len(f.want) {
		f.want = append(f.want, make([]byte, size-len(f.want))...)
	}
	f.want = f.want[:size]
}

// put notes what was written.
func (f *exercised) put(p []byte, off int) {
	f.resize(max(len(f.want), off+len(p)))
	copy(f.want[off:], p)
}

// part returns what a file must have in a range.
func (f *exercised) part(off, n int) []byte {
	off = min(off, len(f.want))
	return f.want[off:min(off+n, len(f.want))]
}

// differs says where bytes are others than those that were written.
func differs(off int, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	return fmt.Errorf("%d bytes at %d, want %d, and others from %d on", len(got), off, len(want), off+at)
}

func (f *exercised) compare(off, n int) error {
	got := make([]byte, n)
	k, err := f.ReadAt(got, int64(off))
	if err != nil && err != io.EOF {
		return err
	}
	return differs(off, got[:k], f.part(off, n))
}

// compareAll looks at all of both files: size, bytes, and that no data is in a hole.
func (x *exerciser) compareAll() error {
	for i := range x.files {
		f := &x.files[i]
		if st, err := f.Stat(); err != nil || st.Size() != int64(len(f.want)) {
			return fmt.Errorf("file %d has %d bytes, want %d (%v)", i, st.Size(), len(f.want), err)
		}
		if err := errors.Join(f.compare(0, exerciserSize+1), f.holes()); err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
	}
	return nil
}

// holes looks for data where SEEK_DATA and SEEK_HOLE tell of none.
func (f *exercised) holes() error {
	for at := int64(0); at < int64(len(f.want)); {
		data, err := unix.Seek(f.fd(), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = int64(len(f.want)), nil
		}
		if err != nil || data < at || data > int64(len(f.want)) {
			return fmt.Errorf("data from %d on: at %d (%v)", at, data, err)
		}
		if i := bytes.IndexFunc(f.want[at:data], func(r rune) bool { return r != 0 }); i >= 0 {
			return fmt.Errorf("a hole from %d to %d, but there is data at %d", at, data, at+int64(i))
		}
		if data == int64(len(f.want)) {
			return nil
		}
		if at, err = unix.Seek(f.fd(), data, unix.SEEK_HOLE); err != nil || at <= data {
			return fmt.Errorf("a hole behind %d: at %d (%v)", data, at, err)
		}
	}
	return nil
}

// place returns a range that is somewhere in a file, or also behind it.
func (x *exerciser) place() (off, n int) {
	off = x.rng.IntN(exerciserSize)
	n = 1 + x.rng.IntN(min(exerciserSize-off, 1<<x.rng.IntN(18)))
	if x.rng.IntN(4) == 0 { // at borders of pages and records
		off = off / pageSize * pageSize
		n = min((n+pageSize-1)/pageSize*pageSize, exerciserSize-off)
	}
	return off, n
}

// step does one operation and keeps its words.
func (x *exerciser) step() error {
	i := x.rng.IntN(2)
	f, other := &x.files[i], &x.files[1-i]
	off, n := x.place()
	what, err := "", error(nil)
	switch x.rng.IntN(18) {
	case 0, 1, 2:
		what, err = "write", f.write(off, random(n, x.rng.Uint64()))
	case 3:
		what, err = "append", f.appendTo(random(1+n%10_000, x.rng.Uint64()))
	case 4, 5:
		what, err = "read", f.compare(off, n)
	case 6, 7:
		what, err = "read through a mapping", f.mapped(off, n, nil)
	case 8, 9:
		what, err = "write through a mapping", f.mapped(off, n, random(n, x.rng.Uint64()))
	case 10:
		what, err = "truncate", f.cut(off)
	case 11:
		what, err = "punch a hole", f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case 12:
		what, err = "zero", f.fallocate(unix.FALLOC_FL_ZERO_RANGE|uint32(x.rng.IntN(2)*unix.FALLOC_FL_KEEP_SIZE), off, n)
	case 13:
		what, err = "allocate", f.fallocate(uint32(x.rng.IntN(2)*unix.FALLOC_FL_KEEP_SIZE), off, n)
	case 14:
		what, err = "copy from the other", f.copyFrom(other, off, x.rng.IntN(exerciserSize), n)
	case 15:
		what, err = "copy within", f.copyFrom(f, off, x.rng.IntN(exerciserSize), n)
	case 16:
		what, err = "direct", f.direct(off/pageSize*pageSize, n/pageSize*pageSize, x.rng)
	case 17:
		what, err = "reopen", f.reopen(x.rng.IntN(2) == 0)
	}
	x.done = append(x.done, fmt.Sprintf("file %d: %s, %d bytes at %d; size %d", i, what, n, off, len(f.want)))
	x.done = x.done[max(0, len(x.done)-40):]
	if err != nil {
		err = fmt.Errorf("file %d: %s, %d bytes at %d: %w", i, what, n, off, err)
	}
	return err
}

func (f *exercised) write(off int, p []byte) error {
	_, err := f.WriteAt(p, int64(off))
	f.put(p, off)
	return err
}

func (f *exercised) appendTo(p []byte) error {
	if len(f.want)+len(p) > exerciserSize {
		return nil
	}
	end, err := os.OpenFile(f.Name(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = end.Write(p)
	f.put(p, len(f.want))
	return errors.Join(err, end.Close())
}

// mapped reads a range through a mapping, and writes p there if it is not nil.
func (f *exercised) mapped(off, n int, p []byte) error {
	if off >= len(f.want) && p == nil {
		return nil
	}
	if size := max(len(f.want), off+n); p != nil && size > len(f.want) {
		if err := f.cut(size); err != nil {
			return err
		}
	}
	from := off / pageSize * pageSize
	want := f.part(off, n)
	m, err := unix.Mmap(f.fd(), int64(from), off-from+len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if err := differs(off, m[off-from:], want); err != nil || p == nil {
		return err
	}
	copy(m[off-from:], p)
	f.put(p, off)
	if len(p)%2 == 0 {
		return unix.Msync(m, unix.MS_SYNC)
	}
	return nil
}

func (f *exercised) cut(size int) error {
	f.resize(size)
	return f.Truncate(int64(size))
}

func (f *exercised) fallocate(mode uint32, off, n int) error {
	if err := unix.Fallocate(f.fd(), mode, int64(off), int64(n)); err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		f.resize(max(len(f.want), off+n))
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		clear(f.part(off, n))
	}
	return nil
}

// copyFrom copies within a file, or between two, as far as copy_file_range(2) does.
func (f *exercised) copyFrom(src *exercised, from, to, n int) error {
	if n = min(n, exerciserSize-to); n <= 0 || from >= len(src.want) {
		return nil
	}
	if f == src && from < to+n && to < from+n {
		return nil // they overlap
	}
	in, out := int64(from), int64(to)
	k, err := unix.CopyFileRange(src.fd(), &in, f.fd(), &out, n, 0)
	if err != nil {
		return err
	}
	if k == 0 || k > len(src.part(from, n)) {
		return fmt.Errorf("%d bytes were copied", k)
	}
	f.put(bytes.Clone(src.part(from, k)), to)
	return nil
}

// direct writes a range past the cache, or reads it.
func (f *exercised) direct(off, n int, rng *rand.Rand) error {
	if n == 0 {
		return nil
	}
	fd, err := unix.Open(f.Name(), unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p := aligned(n)
	if rng.IntN(2) == 0 {
		copy(p, random(n, rng.Uint64()))
		_, err = unix.Pwrite(fd, p, int64(off))
		f.put(p, off)
		return err
	}
	k, err := unix.Pread(fd, p, int64(off))
	if err != nil {
		return err
	}
	return differs(off, p[:k], f.part(off, n))
}

// aligned returns memory that begins at a page.
func aligned(n int) []byte {
	p := make([]byte, n+pageSize)
	skip := -uintptr(unsafe.Pointer(&p[0])) % pageSize
	return p[skip:][:n:n]
}
