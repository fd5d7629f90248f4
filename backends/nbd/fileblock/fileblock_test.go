package fileblock

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/nbd"
)

var (
	_ nbd.Block          = (*Block)(nil)
	_ nbd.ReadOnlyBlock  = (*Block)(nil)
	_ nbd.AllocatedBlock = (*Block)(nil)
)

const mib = 1 << 20

func open(t *testing.T, flags int, size int64) (*Block, *os.File) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "disk"), os.O_CREATE|flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if size > 0 {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	b, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	if b.Size() != size {
		t.Fatalf("size %d, want %d", b.Size(), size)
	}
	return b, f
}

func TestZerosReadBackAndSpaceIsGivenBack(t *testing.T) {
	b, f := open(t, os.O_RDWR, 4*mib)
	ctx := context.Background()
	data := bytes.Repeat([]byte{0xee}, 4*mib)
	if _, err := b.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Zero(ctx, mib+5, mib); err != nil {
		t.Fatal(err)
	}
	clear(data[mib+5:][:mib])
	switch err := b.Discard(ctx, 3*mib, mib); {
	case errors.Is(err, errors.ErrUnsupported):
		t.Skipf("the filesystem of %s has no holes: %v", f.Name(), err)
	case err != nil:
		t.Fatal(err)
	}
	clear(data[3*mib:])
	got := make([]byte, 4*mib)
	if _, err := b.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file differs from the model: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 4*mib || st.Blocks*512 > 3*mib {
		t.Errorf("the file has %d bytes and takes %d", st.Size, st.Blocks*512)
	}
}

func TestHolesAreTold(t *testing.T) {
	b, _ := open(t, os.O_RDWR, 4*mib)
	if _, err := b.WriteAt(make([]byte, mib), mib); err != nil {
		t.Fatal(err)
	}
	if _, hole, err := b.Allocated(0, mib); err != nil || !hole {
		t.Skipf("the filesystem tells of no holes: %v", err)
	}
	for _, tc := range []struct {
		off, n, length int64
		hole           bool
	}{
		{0, 4 * mib, mib, true},
		{mib - 1, 4 * mib, 1, true},
		{mib, 3 * mib, mib, false},
		{mib, 10, 10, false},
		{2 * mib, 2 * mib, 2 * mib, true},
		{4*mib - 1, 1, 1, true},
	} {
		if length, hole, err := b.Allocated(tc.off, tc.n); length != tc.length || hole != tc.hole || err != nil {
			t.Errorf("%d bytes at %d: %d, hole %v, %v; want %d, %v", tc.n, tc.off, length, hole, err, tc.length, tc.hole)
		}
	}
}

func TestAFileOpenedForReadingIsReadOnly(t *testing.T) {
	if b, _ := open(t, os.O_RDONLY, 0); !b.ReadOnly() {
		t.Error("not read-only")
	}
	if b, _ := open(t, os.O_RDWR, 0); b.ReadOnly() {
		t.Error("read-only")
	}
}

func TestAPipeIsNoBlockDevice(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := New(r); !errors.Is(err, unix.ESPIPE) {
		t.Errorf("New: %v", err)
	}
}
