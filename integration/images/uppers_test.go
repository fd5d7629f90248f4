//go:build integration

package images

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What podman leaves in the upper of a container, over kernel overlayfs and with lamina
// as its mount_program, is understood: what inspect tells of it agrees with find on the
// mount and on the directories.
func TestInspectUnderstandsUppersOfPodman(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("needs podman (apt-get install podman)")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: podman's containers are mounted without running them")
	}
	bin, image := build(t), rootfs(t)
	link := filepath.Join(filepath.Dir(bin), "fuse-overlayfs")
	if err := os.Symlink(bin, link); err != nil {
		t.Fatal(err)
	}
	for engine, option := range map[string]string{"kernel": "overlay.mountopt=nodev", "mount_program": "overlay.mount_program=" + link} {
		t.Run(engine, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "up") // podman takes no long paths
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			t.Setenv("LAMINA_RUNTIME_DIR", filepath.Join(dir, "lamina"))
			pod := func(args ...string) string {
				return strings.TrimSpace(run(t, podman, append([]string{"--root", dir + "/pod", "--runroot", dir + "/run",
					"--storage-driver", "overlay", "--storage-opt", option}, args...)...))
			}
			defer func() { run(t, "sh", "-c", `umount "$0"/pod/overlay 2>/dev/null || true`, dir) }()
			pod("import", image, "localhost/app:1")
			pod("create", "--name", "c", "--network", "none", "localhost/app:1", "true")
			mnt := pod("mount", "c")
			defer pod("umount", "c")
			run(t, "sh", "-c", `cd "$0" && rm tmp/link && echo other >etc/motd && mkdir new && echo x >new/f && mv etc etc2 && rm -r tmp && mkdir tmp && echo y >tmp/y && chmod 700 bin && rm bin/sh`, mnt)
			stack := "lowerdir=" + pod("inspect", "c", "--format", "{{.GraphDriver.Data.LowerDir}}") + ",upperdir=" + pod("inspect", "c", "--format", "{{.GraphDriver.Data.UpperDir}}")

			if want, got := run(t, "sh", "-c", `cd "$0" && find . -printf '/%P\n' | sort`, mnt), run(t, "sh", "-c", `"$0" inspect find "$1" / | sort`, bin, stack); want != got {
				t.Errorf("find on the mount:\n%s\ninspect find:\n%s", want, got)
			}
			var w struct {
				Shown  int64 `json:"shown_bytes"`
				Bytes  int64 `json:"bytes"`
				Hidden int64 `json:"hidden_bytes"`
				Errors int
				Layers []struct{ Bytes, Files, Directories, Whiteouts int64 }
			}
			if err := json.Unmarshal([]byte(run(t, bin, "inspect", "waste", "--json", stack)), &w); err != nil {
				t.Fatal(err)
			}
			const sum = `find "$0" -type f -printf '%i %s\n' | sort -u | awk '{ s += $2 } END { print s + 0 }'`
			number := func(script, dir string) int64 {
				n, err := strconv.ParseInt(strings.TrimSpace(run(t, "sh", "-c", script, dir)), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			if shown := number(sum, mnt); w.Shown != shown || w.Bytes-w.Hidden != shown || w.Errors != 0 {
				t.Errorf("%+v; find sums up %d bytes", w, shown)
			}
			upper := pod("inspect", "c", "--format", "{{.GraphDriver.Data.UpperDir}}")
			for what, pair := range map[string][2]int64{
				"files":       {w.Layers[0].Files, number(`find "$0" -type f | wc -l`, upper)},
				"directories": {w.Layers[0].Directories, number(`find "$0" -type d | wc -l`, upper)},
				"whiteouts":   {w.Layers[0].Whiteouts, number(`find "$0" -type c | wc -l`, upper)},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s of the upper: %d, find counts %d", what, pair[0], pair[1])
				}
			}
			run(t, bin, "inspect", "check", "--lower", pod("inspect", "c", "--format", "{{.GraphDriver.Data.LowerDir}}"), upper)
			run(t, bin, "inspect", "diff", mnt, stack) // a mount is its stack: exit 0
		})
	}
}
