package blocks

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

var ctx = context.Background()

func newPool(t *testing.T) *blockpool.Pool {
	t.Helper()
	dir := t.TempDir()
	err := blockpool.Create(blockpool.CreateOptions{
		Config:   blockpool.Config{Name: "tank"},
		Devices:  []blockpool.DeviceSpec{{Path: dir + "/disk", Size: 64 << 20}},
		Metadata: []string{blockpool.ReplicaName(dir, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := blockpool.Open(dir, blockpool.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	for _, err := range []error{
		p.CreateVolume(ctx, "a/vol", 1<<20, blockpool.VolumeOptions{RecordSize: 64 << 10}),
		p.Snapshot(ctx, "a/vol", "a/vol@s"),
		p.CreateVolume(ctx, "other", 1<<20, blockpool.VolumeOptions{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestVolumesAreShownAsTheyAre(t *testing.T) {
	v := Volumes{newPool(t)}
	list, err := v.List()
	if err != nil || len(list) != 3 || list[0].Name != "a/vol" || list[0].ReadOnly || list[0].BlockSize != 64<<10 || list[0].Size != 1<<20 || !list[1].ReadOnly {
		t.Errorf("%+v (%v)", list, err)
	}
	if i, err := v.Stat("a/vol@s"); err != nil || i.ID != list[1].ID {
		t.Errorf("%+v (%v)", i, err)
	}
	if _, err := v.Stat("none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a volume that is not there: %v", err)
	}
	if total, free, err := v.Capacity(); err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("%d of %d are free (%v)", free, total, err)
	}
}

// An export that counts wrong keeps its server for ever, or ends under a guest.
func TestNamedCountsItsClients(t *testing.T) {
	p := newPool(t)
	n := &Named{Pool: p, Only: "a/vol"}
	b, release, err := n.Open(ctx, "")
	if err != nil || b.Size() != 1<<20 || n.Clients() != 1 {
		t.Fatalf("%v, %d clients", err, n.Clients())
	}
	if err := p.Destroy(ctx, "a/vol"); !errors.Is(err, blockpool.ErrBusy) {
		t.Errorf("destroying what a client has open: %v", err)
	}
	if _, _, err := n.Open(ctx, "other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another volume than the one: %v", err)
	}
	release()
	if n.Clients() != 0 {
		t.Errorf("%d clients after the last one has left", n.Clients())
	}
	if err := p.Destroy(ctx, "a/vol"); err != nil {
		t.Error(err)
	}
	all := &Named{Pool: p}
	if names, err := all.List(ctx); err != nil || !slices.Equal(names, []string{"a/vol@s", "other"}) {
		t.Errorf("%q (%v)", names, err)
	}
	if _, _, err := all.Open(ctx, ""); err == nil {
		t.Error("a client who asks for no name has got something")
	}
}
