package devicemapper

import (
	"testing"

	"github.com/laminafs/lamina/backends/drivertest"
)

var subject = drivertest.Subject{Open: Open, Deepest: 128}

func TestMain(m *testing.M)        { drivertest.Main(m, subject) }
func TestConformance(t *testing.T) { drivertest.Run(t, subject) }
func TestOtherUsers(t *testing.T)  { drivertest.Others(t) }
