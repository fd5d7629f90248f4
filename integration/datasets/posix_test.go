//go:build integration

package datasets

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestGoFuse runs the tests that go-fuse has for filesystems served by it.
func TestGoFuse(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
			if name == "FcntlFlockLocksFile" {
				continue // two locks of one process, which on no local filesystem conflict (fcntl(2))
			}
			t.Run(name, func(t *testing.T) {
				own := filepath.Join(dir, name)
				if err := os.Mkdir(own, 0o755); err != nil {
					t.Fatal(err)
				}
				posixtest.All[name](t, own)
			})
		}
	})
}

// TestPjdfstest runs the POSIX tests of https://github.com/pjd/pjdfstest, built in the
// directory that LAMINA_PJDFSTEST names, or those of its tests that LAMINA_PJDFSTEST_RUN
// names.
func TestPjdfstest(t *testing.T) {
	suite := os.Getenv("LAMINA_PJDFSTEST")
	if suite == "" {
		t.Skip("LAMINA_PJDFSTEST does not name a directory with pjdfstest")
	}
	need(t, "prove")
	for _, options := range []string{"writeback=0", "writeback=1"} {
		t.Run(options, func(t *testing.T) {
			_, dir := mounted(t, 0, "suid,dev,allow_other,"+options)
			cmd := exec.Command("prove", "-r", "-j", "2", filepath.Join(suite, "tests", os.Getenv("LAMINA_PJDFSTEST_RUN")))
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			t.Log(string(regexp.MustCompile(`(?m)^(Files=|Result:).*$`).Find(out)))
		})
	}
}
