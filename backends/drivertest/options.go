package drivertest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
)

// Refused checks that a driver that keeps layers in a pool refuses options, those of a
// key separated by spaces, with a reason that has the value's words, and before any
// pool is made.
func Refused(t *testing.T, open func(driver.Config) (driver.Driver, error), reasons map[string]string) {
	for options, says := range reasons {
		root := filepath.Join(t.TempDir(), "root")
		given := strings.Fields(options)
		if !strings.Contains(options, "fsname") {
			given = append([]string{"poolsize=256m"}, given...)
		}
		d, err := open(driver.Config{Root: root, Engine: driver.Userspace, Options: given, PoolServer: PoolCommand})
		if err == nil {
			d.Close()
			t.Errorf("%s was taken", options)
			continue
		}
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", options, err, says)
		}
		if _, err := os.Stat(filepath.Join(root, "pool")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was refused, and left a pool", options)
		}
	}
}
