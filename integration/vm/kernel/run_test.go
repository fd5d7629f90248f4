package kernel

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// need skips a test where root, a file of the kernel's or a program is missing.
func need(t *testing.T, file string, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it mounts and makes devices, which only root may; run make vm-test")
	}
	f, err := os.Open(file) // the name may be there without a driver behind it
	if err != nil {
		t.Skipf("%v: this kernel has no such devices; run make vm-test", err)
	}
	f.Close()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v; run make vm-test", err)
		}
	}
}

// ok runs a program that must not fail, and returns what it printed.
func ok(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

// mounted mounts a device until the test ends or unmounts it itself.
func mounted(t *testing.T, device, dir, fstype string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(device, dir, fstype, 0, ""); err != nil {
		t.Fatalf("mount %s: %v", device, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatalf("unmount %s: %v", dir, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
