package blockpool

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool/vdev"
)

// newFilePool makes a pool of real files, whose second replica lies in another
// directory and is linked from its own.
func newFilePool(t *testing.T) (dir, elsewhere string, devices []string) {
	t.Helper()
	dir, elsewhere = t.TempDir(), filepath.Join(t.TempDir(), "copy.db")
	o := CreateOptions{Config: Config{Name: "tank", MetadataProfile: Mirror}, Metadata: []string{ReplicaName(dir, 0), elsewhere}}
	for _, name := range []string{"a", "b"} {
		devices = append(devices, filepath.Join(dir, name))
		o.Devices = append(o.Devices, DeviceSpec{Path: filepath.Join(dir, name), Size: 32 << 20})
	}
	if err := Create(o); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, ReplicaName(dir, 1)); err != nil {
		t.Fatal(err)
	}
	return dir, elsewhere, devices
}

// A command that is given a device must find the pool while somebody has it.
func TestIdentifyNamesThePoolOfADeviceInUse(t *testing.T) {
	dir, elsewhere, devices := newFilePool(t)
	p, err := Open(dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	id, err := Identify(devices[1])
	if err != nil || id.Name != "tank" || id.GUID != p.GUID() || len(id.Replicas) != 2 || id.Replicas[1] != elsewhere {
		t.Errorf("%+v (%v)", id, err)
	}
	for _, path := range []string{ReplicaName(dir, 0), dir, filepath.Join(dir, "none"), "/dev/null"} {
		if id, err := Identify(path); err == nil {
			t.Errorf("%s was taken for a device: %+v", path, id)
		}
	}
}

func TestSecondOwnerIsRefusedAsInUse(t *testing.T) {
	dir, _, devices := newFilePool(t)
	p, err := Open(dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, path := range []string{dir, ReplicaName(dir, 0), devices[0]} {
		if _, err := Open(path, OpenOptions{}); !errors.Is(err, ErrInUse) || !errors.Is(err, unix.EBUSY) {
			t.Errorf("open %s a second time: %v, want ErrInUse", path, err)
		}
	}
	if err := Destroy(dir, OpenOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("destroy an open pool: %v, want ErrInUse", err)
	}
}

// A replica that lies on another disk is to stay there, whatever the pool's
// directory looks like.
func TestLinkedReplicaIsUsedWhereItLies(t *testing.T) {
	dir, elsewhere, _ := newFilePool(t)
	p, err := Open(dir, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CreateVolume(ctx, "vol", 1<<20, VolumeOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(elsewhere, make([]byte, 1<<16), 0o600); err != nil { // damaged: is written anew
		t.Fatal(err)
	}
	if p, err = Open(dir, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if st, err := os.Lstat(ReplicaName(dir, 1)); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is %v (%v) now", st.Mode(), err)
	}
	if p, err = Open(elsewhere, OpenOptions{}); err != nil {
		t.Fatalf("the replica elsewhere was not mended: %v", err)
	}
	defer p.Close()
	if _, err := p.Volume("vol"); err != nil {
		t.Error(err)
	}
}

func TestDestroyLeavesDevicesForOtherUse(t *testing.T) {
	dir, elsewhere, devices := newFilePool(t)
	if err := Destroy(dir, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{ReplicaName(dir, 0), elsewhere} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	os.Remove(ReplicaName(dir, 1))
	o := CreateOptions{Config: Config{Name: "next"}, Metadata: []string{ReplicaName(dir, 0)}}
	for _, path := range devices {
		o.Devices = append(o.Devices, DeviceSpec{Path: path})
	}
	if err := Create(o); err != nil {
		t.Errorf("a new pool of the same devices: %v", err)
	}
}

// What cannot be reached is named, for it still says that it is the pool's.
func TestDestroyNamesADeviceThatIsMissing(t *testing.T) {
	dir, _, devices := newFilePool(t)
	hidden := devices[1] + ".away"
	if err := os.Rename(devices[1], hidden); err != nil {
		t.Fatal(err)
	}
	if err := Destroy(dir, OpenOptions{}); !errors.Is(err, ErrIncomplete) {
		t.Errorf("%v, want ErrIncomplete", err)
	}
	if _, err := os.Stat(ReplicaName(dir, 0)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the metadata is still there")
	}
	dev, err := vdev.Open(hidden)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if _, err := readLabel(dev); err != nil {
		t.Errorf("the device that was away: %v", err)
	}
}
