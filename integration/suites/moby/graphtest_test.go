package moby

import (
	"os"
	"testing"

	"github.com/moby/moby/v2/daemon/graphdriver/graphtest"

	"github.com/laminafs/lamina/backends/drivertest"
	"github.com/laminafs/lamina/integration/suites"
)

func TestMain(m *testing.M) {
	drivertest.BeServer()
	os.Exit(m.Run())
}

func TestGraph(t *testing.T) {
	suites.Each(t, func(t *testing.T, s suites.Subject) {
		name := "lamina-" + s.String()
		if err := Register(name, s.Open); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"CreateEmpty", func(t *testing.T) { graphtest.DriverTestCreateEmpty(t, name) }},
			{"CreateBase", func(t *testing.T) { graphtest.DriverTestCreateBase(t, name) }},
			{"CreateSnap", func(t *testing.T) { graphtest.DriverTestCreateSnap(t, name) }},
			{"DeepLayerRead", func(t *testing.T) { graphtest.DriverTestDeepLayerRead(t, suites.Layers(), name) }},
			{"DiffApply", func(t *testing.T) { graphtest.DriverTestDiffApply(t, 100, name) }},
			{"Changes", func(t *testing.T) { graphtest.DriverTestChanges(t, name) }},
			{"SetQuota", func(t *testing.T) {
				s.NeedSizes(t)
				graphtest.DriverTestSetQuota(t, name, true)
			}},
		} {
			t.Run(test.name, test.run)
		}
	})
}
