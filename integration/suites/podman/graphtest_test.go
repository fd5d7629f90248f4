package podman

import (
	"os"
	"testing"

	"go.podman.io/storage/drivers/graphtest"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
	"github.com/laminafs/lamina/integration/suites"
)

func TestMain(m *testing.M) {
	drivertest.BeServer()
	os.Exit(m.Run())
}

// full is why a limit is not the suite's.
const full = "a layer that has reached its limit is full, as a disk is: ENOSPC; this suite takes nothing but EDQUOT, the answer of project quotas, while moby's takes either"

var differences = []suites.Difference{
	{Test: "SetQuota", Driver: "overlay2", Engine: driver.Userspace, Why: full},
	{Test: "SetQuota", Driver: "overlay", Engine: driver.Userspace, Why: full},
	{Test: "SetQuota", Driver: "aufs", Engine: driver.Userspace, Why: full},
	{Test: "SetQuota", Driver: "vfs", Engine: driver.Userspace, Why: full},
	{Test: "SetQuota", Driver: "devicemapper", Engine: driver.Userspace, Why: full},
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
			{"CreateFromTemplate", func(t *testing.T) { graphtest.DriverTestCreateFromTemplate(t, name) }},
			{"DeepLayerRead", func(t *testing.T) { graphtest.DriverTestDeepLayerRead(t, suites.Layers(), name) }},
			{"DiffApply", func(t *testing.T) { graphtest.DriverTestDiffApply(t, 100, name) }},
			{"Changes", func(t *testing.T) { graphtest.DriverTestChanges(t, name) }},
			{"Echo", func(t *testing.T) { graphtest.DriverTestEcho(t, name) }},
			{"ListLayers", func(t *testing.T) { graphtest.DriverTestListLayers(t, name) }},
			{"SetQuota", func(t *testing.T) {
				s.NeedSizes(t)
				graphtest.DriverTestSetQuota(t, name)
			}},
		} {
			t.Run(test.name, func(t *testing.T) {
				s.Skip(t, test.name, differences)
				test.run(t)
			})
		}
	})
}
