package fusefs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// layers makes lower directories that each hold a file of their name, with an
// upper and a work directory on a tmpfs of their own.
func layers(t *testing.T, names ...string) (base string) {
	t.Helper()
	needMount(t)
	base = t.TempDir()
	if err := unix.Mount("layers", base, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })
	for _, name := range append(names, "upper", "work", "merged") {
		if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(base, name, "of-"+filepath.Base(name)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

func mountKernel(t *testing.T, base string, o mountopt.Options) Info {
	t.Helper()
	o.Absolute(base)
	target := filepath.Join(base, "merged")
	info, err := MountKernel(&o, target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	return info
}

func TestKernelEngineMountsAwkwardNames(t *testing.T) {
	lowers := []string{"a:b", "c,d", `e\f`, `g\`, "h i", "l/" + strings.Repeat("long", 60)}
	base := layers(t, lowers...)
	info := mountKernel(t, base, mountopt.Options{Lower: lowers, Upper: "upper", Work: "work", Fsync: true})
	for _, name := range lowers {
		if _, err := os.Stat(filepath.Join(base, "merged", "of-"+filepath.Base(name))); err != nil {
			t.Error(err)
		}
	}
	if info.Type != "overlay" || info.Target != filepath.Join(base, "merged") {
		t.Errorf("info %+v", info)
	}
	// What FUSE does by default must work here too.
	if err := os.Mkdir(filepath.Join(base, "merged", "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(base, "merged", "dir"), filepath.Join(base, "merged", "dir2")); err != nil {
		t.Error(err)
	}
}

func TestKernelEngineTakesManyLowers(t *testing.T) {
	var lowers []string
	for i := range 300 {
		lowers = append(lowers, fmt.Sprintf("layer-with-a-rather-long-name-%03d", i))
	}
	base := layers(t, lowers...)
	mountKernel(t, base, mountopt.Options{Lower: lowers, Fsync: true})
	entries, err := os.ReadDir(filepath.Join(base, "merged"))
	if err != nil || len(entries) != len(lowers) {
		t.Errorf("%d entries (%v), want %d", len(entries), err, len(lowers))
	}
	if err := os.Mkdir(filepath.Join(base, "merged", "x"), 0o755); err == nil {
		t.Error("a union without an upper was written to")
	}
}

func TestKernelEngineTellsWhyItCannot(t *testing.T) {
	base := layers(t, "lower")
	for says, o := range map[string]mountopt.Options{
		"option size":      {Lower: []string{"lower"}, Size: 1, Fsync: true},
		"does not exist: ": {Lower: []string{"nowhere"}, Fsync: true},
	} {
		o.Absolute(base)
		if _, err := MountKernel(&o, filepath.Join(base, "merged")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an error that says %q", err, says)
		}
	}
}
