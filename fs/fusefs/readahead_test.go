package fusefs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On a machine whose disks are set to read far ahead, a large file is read in few
// requests also through the mount; and a page fault never costs megabytes.
func TestMountReadsAheadAsItsLayersDo(t *testing.T) {
	needMount(t)
	d := mountNobody(t, t.TempDir(), MountFlags{FSName: "layers", Subtype: "lamina"})
	name := filepath.Join("/sys/class/bdi", d.devName(), "read_ahead_kb")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs the right to set read-ahead: %v", err)
	}
	f.Close()
	for _, c := range []struct {
		layers int
		want   string
	}{{0, "128"}, {64, "128"}, {256, "256"}, {8192, "512"}} {
		d.readAhead(c.layers)
		if got, err := os.ReadFile(name); err != nil || strings.TrimSpace(string(got)) != c.want {
			t.Errorf("over disks that read %d KB ahead the mount reads %q ahead, %v; want %s", c.layers, got, err, c.want)
		}
	}
}
