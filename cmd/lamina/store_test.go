package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rootfs is a tar of a small root filesystem.
func rootfs(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range []struct{ name, data string }{{"etc/", ""}, {"etc/motd", "hello"}, {"etc/gone", "x"}} {
		h := &tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.data))}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The way of an image through the commands: in, built upon, written to, compared,
// committed, out, and away. As whoever runs the tests.
func TestImageToContainerAndBack(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE for this user: %v", err)
	} else {
		f.Close()
	}
	root := filepath.Join(t.TempDir(), "store")
	archive := rootfs(t)
	for _, driver := range []string{"overlay2", "aufs", "overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			run := func(args ...string) string {
				t.Helper()
				r := lamina(t, append(args, "--root", root, "--driver", driver, "--engine", "userspace")...)
				if r.status != exitOK {
					t.Fatalf("lamina %q: status %d: %s%s", args, r.status, r.stdout, r.stderr)
				}
				return r.stdout
			}
			// One store has one driver's layers under its names.
			root = filepath.Join(t.TempDir(), "store")
			run("image", "load", "--name", "base", archive)
			run("layer", "create", "--image", "base", "work")
			at := strings.TrimSpace(run("layer", "mount", "work"))
			t.Cleanup(func() {
				lamina(t, "layer", "umount", "--lazy", "work", "--root", root, "--driver", driver)
			})
			if text, err := os.ReadFile(at + "/etc/motd"); err != nil || string(text) != "hello" {
				t.Fatalf("%s/etc/motd: %q, %v", at, text, err)
			}
			if err := os.WriteFile(at+"/etc/motd", []byte("changed"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(at + "/etc/gone"); err != nil {
				t.Fatal(err)
			}
			if r := lamina(t, "layer", "rm", "work", "--root", root, "--driver", driver); r.status != exitFailure || !strings.Contains(r.stderr, "umount") {
				t.Errorf("removing a mounted layer: status %d, %q; want a refusal that names the next step", r.status, r.stderr)
			}
			run("layer", "umount", "work")
			if got, want := run("layer", "changes", "work"), "C /etc\nD /etc/gone\nC /etc/motd\n"; got != want {
				t.Errorf("changes:\n%swant:\n%s", got, want)
			}
			run("layer", "commit", "work", "done")
			diff := run("layer", "diff", "done")
			if !strings.Contains(diff, "etc/.wh.gone") || !strings.Contains(diff, "changed") {
				t.Error("the archive of the layer lacks its changes")
			}
			whole := run("layer", "export", "done")
			if strings.Contains(whole, "etc/gone") || !strings.Contains(whole, "etc/motd") {
				t.Error("the archive of the tree is not what the layer shows")
			}
			saved := filepath.Join(t.TempDir(), "saved.tar")
			run("image", "save", "-o", saved, "base")
			before := run("image", "ls", "--json")
			run("layer", "rm", "done")
			run("image", "rm", "base")
			if list := run("layer", "ls", "--json"); strings.TrimSpace(list) != "[]" {
				t.Errorf("layers left: %s", list)
			}
			run("image", "load", saved)
			var a, b []imageText
			if json.Unmarshal([]byte(before), &a) != nil || json.Unmarshal([]byte(run("image", "ls", "--json")), &b) != nil || len(a) != 1 || len(b) != 1 || a[0].ID != b[0].ID {
				t.Errorf("saved and loaded again: %+v, before %+v", b, a)
			}
			at = strings.TrimSpace(run("image", "mount", "base"))
			if text, err := os.ReadFile(at + "/etc/motd"); err != nil || string(text) != "hello" {
				t.Errorf("the image, mounted: %q, %v", text, err)
			}
			run("image", "umount", "base")
			for _, args := range [][]string{{"info"}, {"df"}, {"gc"}, {"check"}, {"layer", "tree"}, {"image", "history", "base"}} {
				if out := run(args...); out == "" {
					t.Errorf("lamina %q says nothing", args)
				}
				var v any
				if err := json.Unmarshal([]byte(run(append(args, "--json")...)), &v); err != nil {
					t.Errorf("lamina %q --json: %v", args, err)
				}
			}
		})
	}
}

func TestStoreCommandsSayWhatIsWrong(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"layer mount none", exitFailure, "lamina layer ls"},
		{"image mount none", exitFailure, "lamina image ls"},
		{"layer create --parent a --image b c", exitUsage, "keep to one"},
		{"info --driver ext4", exitFailure, "overlay2, overlay, aufs, devicemapper, btrfs, zfs, vfs"},
		{"info --engine fast", exitFailure, "auto, native, userspace"},
		{"info --driver-option overlay2.speed=1", exitFailure, "size, inodes"},
		{"image save --format zip x", exitFailure, "x"},
		{"image load", exitFailure, "the archive is empty"},
	} {
		r := lamina(t, append(strings.Fields(c.args), "--root", root)...)
		if r.status != c.status || !strings.Contains(r.stderr, c.says) {
			t.Errorf("lamina %s: status %d, %q; want %d and %q", c.args, r.status, r.stderr, c.status, c.says)
		}
	}
}

// Whatever a driver makes of layers, one can look into images and containers by name.
func TestInspectLooksIntoTheStore(t *testing.T) {
	newPoolStage(t) // for the servers of drivers that have a pool
	archive := rootfs(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "lamina.toml")
	t.Setenv("LAMINA_CONFIG", config)
	for _, driver := range []string{"overlay2", "aufs", "overlay", "vfs", "btrfs"} {
		t.Run(driver, func(t *testing.T) {
			run := func(args ...string) string {
				t.Helper()
				r := lamina(t, args...)
				if r.status != exitOK {
					t.Fatalf("lamina %q: status %d: %s%s", args, r.status, r.stdout, r.stderr)
				}
				return r.stdout
			}
			if err := os.WriteFile(config, []byte("root = \""+dir+"/store\"\ndriver = \""+driver+"\"\nengine = \"userspace\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if r := lamina(t, "inspect", "tree", "image:base"); r.status != exitFailure {
				t.Fatalf("what is not there: status %d: %s", r.status, r.stdout)
			}
			run("image", "load", "--name", "base", archive)
			run("layer", "create", "--image", "base", "made")
			run("layer", "commit", "made")
			run("layer", "create", "--parent", "made", "work")
			if got := run("inspect", "which", "work", "/etc/motd"); !strings.Contains(got, "/etc/motd comes from layer 1 ") {
				t.Errorf("which: %s", got)
			}
			if got := run("inspect", "cat", "image:base", "etc/motd"); got != "hello" {
				t.Errorf("cat: %q", got)
			}
			if got := run("inspect", "which", "base", "/etc/motd"); !strings.Contains(got, "1 ") {
				t.Errorf("which: %s", got)
			}
			if r := lamina(t, "inspect", "diff", "base", "layer:work"); r.status != exitOK || r.stdout != "" {
				t.Errorf("diff of what is the same: status %d: %s%s", r.status, r.stdout, r.stderr)
			}
		})
	}
}
