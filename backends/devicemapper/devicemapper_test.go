package devicemapper

import (
	"os"
	"testing"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

var subject = drivertest.Subject{Open: open, Deepest: 128}

// backingEnv has the processes of a test open the driver with that dm.backing.
const backingEnv = "LAMINA_DEVICEMAPPER_BACKING"

// open keeps the pools of tests small, and has sizes that the suite can reach.
func open(cfg driver.Config) (driver.Driver, error) {
	options := []string{"dm.loopdatasize=4g", "dm.loopmetadatasize=128m", "dm.basesize=512m"}
	if b := os.Getenv(backingEnv); b != "" {
		options = append(options, "dm.backing="+b)
	}
	if loopObstacle() != "" || os.Getenv(backingEnv) == backingDataset {
		options = append(options, "dm.basesize=4m", "dm.size=512m", "dm.loopdatasize=512m")
	}
	cfg.Options = append(options, cfg.Options...)
	return Open(cfg)
}

func TestMain(m *testing.M)        { drivertest.Main(m, subject) }
func TestConformance(t *testing.T) { drivertest.Run(t, subject) }
func TestOtherUsers(t *testing.T)  { drivertest.Others(t) }

// What ordinary users get can be had by root too.
func TestConformanceOfDatasets(t *testing.T) {
	t.Setenv(backingEnv, backingDataset)
	drivertest.Run(t, subject)
}
