//go:build integration

package datasets

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSmoke(t *testing.T) {
	modes(t, func(t *testing.T, s *server, dir string) {
		s.run("sh", "-c", "cd "+dir+" && echo hello > a && cat a && mkdir d && ln a d/b && ls -la . d && mv d e && rm a && cat e/b && df . && stat -f .")
		if _, err := os.Stat(filepath.Join(dir, ".lamina/snapshot")); err != nil && s.uid == 0 {
			t.Error(err)
		}
	})
}
