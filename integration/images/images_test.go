//go:build integration

// Package images compares what lamina makes of images with what other programs
// make of them.
package images

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build returns the program, built for the test.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "lamina")
	cmd := exec.Command("go", "build", "-o", bin, "../../cmd/lamina")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", filepath.Base(name), args, err, stderr.String())
	}
	return string(out)
}

// rootfs packs a tree with busybox and what images have beside files.
func rootfs(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (apt-get install busybox-static)")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, cmd := range []string{
		"mkdir -p " + root + "/bin " + root + "/etc " + root + "/tmp",
		"cp " + busybox + " " + root + "/bin/busybox",
		"ln " + root + "/bin/busybox " + root + "/bin/sh",
		"ln -s ../etc/motd " + root + "/tmp/link",
		"chmod 1777 " + root + "/tmp",
		"chmod 4755 " + root + "/bin/busybox",
		"sh -c 'echo hello >" + root + "/etc/motd'",
		"tar -C " + root + " --owner=0 --group=0 -cf " + dir + "/rootfs.tar .",
	} {
		if out, err := exec.Command("sh", "-c", cmd).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", cmd, err, out)
		}
	}
	return dir + "/rootfs.tar"
}

// An image goes from lamina to podman and back in both formats with its id and
// the digests of its layers, and podman's idea of its files is lamina's.
func TestImagesGoToPodmanAndBack(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("needs podman (apt-get install podman)")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: podman's store is mounted to compare")
	}
	bin := build(t)
	dir, err := os.MkdirTemp("", "images") // podman takes no long paths
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(dir, "run"))
	of := func(store string) []string { return []string{"--root", filepath.Join(dir, store)} }
	lamina := func(store string, args ...string) string { return run(t, bin, append(args, of(store)...)...) }
	pod := func(args ...string) string {
		return run(t, podman, append([]string{"--root", dir + "/pod", "--runroot", dir + "/podrun", "--storage-driver", "vfs"}, args...)...)
	}
	id := strings.Fields(lamina("one", "image", "load", "--name", "localhost/app:1", rootfs(t)))[0]
	lamina("one", "image", "save", "-o", dir+"/app.tar", "localhost/app:1")
	pod("load", "-i", dir+"/app.tar")
	var inspected []struct {
		ID     string `json:"Id"`
		RootFS struct{ Layers []string }
	}
	if err := json.Unmarshal([]byte(pod("image", "inspect", "localhost/app:1")), &inspected); err != nil {
		t.Fatal(err)
	}
	if "sha256:"+inspected[0].ID != id {
		t.Errorf("podman calls the image %s, lamina %s", inspected[0].ID, id)
	}
	for _, format := range []string{"docker-archive", "oci-archive"} {
		saved := filepath.Join(dir, format+".tar")
		pod("save", "--format", format, "-o", saved, "localhost/app:1")
		back := strings.Fields(lamina(format, "image", "load", saved))
		if back[0] != id {
			t.Errorf("by way of podman's %s the image became %s, it was %s", format, back[0], id)
		}
	}
	theirs := strings.TrimSpace(pod("image", "mount", "localhost/app:1"))
	defer pod("image", "umount", "localhost/app:1")
	ours := strings.TrimSpace(lamina("one", "image", "mount", "localhost/app:1"))
	defer lamina("one", "image", "umount", "localhost/app:1")
	const list = `cd "$0" && find . -printf '%p %y %m %U:%G %s %n %l %T@\n' | sort && find . -type f -exec sha256sum {} + | sort`
	a, b := run(t, "sh", "-c", list, theirs), run(t, "sh", "-c", list, ours)
	if withoutRoot(a) != withoutRoot(b) {
		t.Errorf("podman shows\n%s\nlamina shows\n%s", a, b)
	}
}

// withoutRoot leaves out the line of the root, whose time podman makes its own, and
// sizes and links of directories, which are the filesystem's.
func withoutRoot(list string) string {
	var out []string
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if f[0] == "." {
			continue
		}
		if len(f) > 5 && f[1] == "d" {
			f[4], f[5] = "", ""
		}
		out = append(out, strings.Join(f, " "))
	}
	return strings.Join(out, "\n")
}
