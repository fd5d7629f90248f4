// Package memblock is a block device in memory, sparse, which can fail and tells
// what a crash would lose.
//
//	Zero, Discard ──► pages gone ─┐
//	WriteAt ────────► pages ──────┼──► unflushed ──► Flush: none
//	ReadAt ◄──────── pages, or zeros for holes
package memblock

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// pageSize is the unit in which space is taken.
const pageSize = 4096

// A Block is a device in memory. Its methods are safe for use at once.
type Block struct {
	size int64

	// Fault, if set, is asked before every operation ("read", "write", "zero",
	// "discard", "flush"); what it returns is the operation's error. It may
	// wait, and is called without a lock held.
	Fault func(op string, off, n int64) error

	mu        sync.RWMutex
	pages     map[int64]*[pageSize]byte
	unflushed int64 // bytes
	flushes   int
}

// New returns a device of so many bytes, all of them a hole.
func New(size int64) *Block {
	return &Block{size: size, pages: map[int64]*[pageSize]byte{}}
}

// Size returns the size in bytes.
func (b *Block) Size() int64 { return b.size }

// Unflushed returns how many bytes a crash could lose now.
func (b *Block) Unflushed() int64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.unflushed
}

// Flushes returns how often Flush has succeeded.
func (b *Block) Flushes() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.flushes
}

func (b *Block) enter(op string, off, n int64) error {
	if off < 0 || n < 0 || off > b.size || n > b.size-off {
		return fmt.Errorf("memblock: %s %d bytes at %d of %d: %w", op, n, off, b.size, unix.EINVAL)
	}
	if b.Fault != nil {
		if err := b.Fault(op, off, n); err != nil {
			return fmt.Errorf("memblock: %s %d bytes at %d: %w", op, n, off, err)
		}
	}
	return nil
}

// each calls do with the parts of a range that lie in one page.
func each(off, n int64, do func(page int64, from, to int)) {
	for n > 0 {
		from := off % pageSize
		m := min(n, pageSize-from)
		do(off/pageSize, int(from), int(from+m))
		off, n = off+m, n-m
	}
}

// ReadAt implements io.ReaderAt.
func (b *Block) ReadAt(p []byte, off int64) (int, error) {
	if off >= 0 && off <= b.size && int64(len(p)) > b.size-off {
		n, err := b.ReadAt(p[:b.size-off], off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	if err := b.enter("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	rest := p
	each(off, int64(len(p)), func(page int64, from, to int) {
		part := rest[:to-from]
		rest = rest[to-from:]
		if data := b.pages[page]; data != nil {
			copy(part, data[from:to])
		} else {
			clear(part)
		}
	})
	return len(p), nil
}

// WriteAt implements io.WriterAt.
func (b *Block) WriteAt(p []byte, off int64) (int, error) {
	if err := b.enter("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := p
	each(off, int64(len(p)), func(page int64, from, to int) {
		data := b.pages[page]
		if data == nil {
			data = new([pageSize]byte)
			b.pages[page] = data
		}
		copy(data[from:to], rest)
		rest = rest[to-from:]
	})
	b.unflushed += int64(len(p))
	return len(p), nil
}

// Zero makes a range read as zeros; whole pages become holes.
func (b *Block) Zero(_ context.Context, off, n int64) error { return b.zero("zero", off, n) }

// Discard does the same as Zero.
func (b *Block) Discard(_ context.Context, off, n int64) error { return b.zero("discard", off, n) }

func (b *Block) zero(op string, off, n int64) error {
	if err := b.enter(op, off, n); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	each(off, n, func(page int64, from, to int) {
		data := b.pages[page]
		switch {
		case data == nil:
		case to-from == pageSize:
			delete(b.pages, page)
		default:
			clear(data[from:to])
		}
	})
	b.unflushed += n
	return nil
}

// Flush makes everything survive a crash.
func (b *Block) Flush(context.Context) error {
	b.mu.RLock()
	covered := b.unflushed
	b.mu.RUnlock()
	if err := b.enter("flush", 0, 0); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unflushed = max(0, b.unflushed-covered)
	b.flushes++
	return nil
}

// Allocated returns how many of n bytes at off are alike, and whether they are
// a hole.
func (b *Block) Allocated(off, n int64) (int64, bool, error) {
	if err := b.enter("status", off, n); err != nil {
		return 0, false, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	hole := b.pages[off/pageSize] == nil
	end := off
	for end < off+n && (b.pages[end/pageSize] == nil) == hole {
		end = (end/pageSize + 1) * pageSize
	}
	return min(end, off+n) - off, hole, nil
}

// FastZero returns true for what is made of whole pages.
func (b *Block) FastZero(off, n int64) bool { return off%pageSize == 0 && n%pageSize == 0 }
