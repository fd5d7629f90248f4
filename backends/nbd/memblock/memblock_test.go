package memblock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/nbd"
)

var (
	_ nbd.Block          = (*Block)(nil)
	_ nbd.AllocatedBlock = (*Block)(nil)
	_ nbd.FastZeroBlock  = (*Block)(nil)
)

func TestAgainstASlice(t *testing.T) {
	const size = 10*pageSize + 17
	b, model := New(size), make([]byte, size)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 5000 {
		off := rng.IntN(size)
		part := model[off : off+rng.IntN(min(3*pageSize, size-off)+1)]
		var err error
		switch rng.IntN(4) {
		case 0:
			for j := range part {
				part[j] = byte(i + j)
			}
			_, err = b.WriteAt(part, int64(off))
		case 1:
			clear(part)
			err = b.Zero(context.Background(), int64(off), int64(len(part)))
		default:
			got := make([]byte, len(part))
			if _, err = b.ReadAt(got, int64(off)); !bytes.Equal(got, part) {
				t.Fatalf("step %d: read of %d at %d", i, len(part), off)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for off := int64(0); off < size; {
		n, hole, err := b.Allocated(off, size-off)
		if err != nil || n <= 0 {
			t.Fatalf("status at %d: %d, %v", off, n, err)
		}
		if hole && len(bytes.Trim(model[off:off+n], "\x00")) > 0 {
			t.Errorf("a hole of %d bytes at %d has data", n, off)
		}
		off += n
	}
}

func TestTheEnd(t *testing.T) {
	b := New(100)
	p := make([]byte, 60)
	if n, err := b.ReadAt(p, 50); n != 50 || err != io.EOF {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	if _, err := b.WriteAt(p, 50); !errors.Is(err, unix.EINVAL) {
		t.Errorf("write across the end: %v", err)
	}
}

func TestFaultsAndFlushes(t *testing.T) {
	b, ctx := New(pageSize), context.Background()
	b.WriteAt(make([]byte, 5), 0)
	b.Fault = func(op string, _, _ int64) error { return unix.EIO }
	if err := b.Flush(ctx); !errors.Is(err, unix.EIO) || b.Unflushed() != 5 || b.Flushes() != 0 {
		t.Errorf("a flush that failed: %v, %d bytes left, %d flushes", err, b.Unflushed(), b.Flushes())
	}
	b.Fault = nil
	if err := b.Flush(ctx); err != nil || b.Unflushed() != 0 || b.Flushes() != 1 {
		t.Errorf("flush: %v, %d bytes left, %d flushes", err, b.Unflushed(), b.Flushes())
	}
}
