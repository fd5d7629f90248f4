package main

import (
	"fmt"
	"slices"
	"strings"
)

// A suite is what is tested in the machine under one name.
type suite struct {
	name    string
	help    string
	modules []string // of the kernel, with what they need
	zfs     bool     // needs modules that are compiled first
	tests   []binary
}

// A binary is a compiled package of tests.
type binary struct {
	pkg    string     // below the module
	run    string     // -test.run
	must   []string   // tests that have to pass; their names may end in subtests
	before [][]string // programs that prepare the machine for it
	env    []string
}

var suites = []suite{
	{
		name:    "dm",
		help:    "the native engine of backends/devicemapper; lamina's pools as pools of dm-thin",
		modules: []string{"dm-thin-pool", "loop", "xfs", "fuse"},
		tests: []binary{
			{pkg: "integration/vm/kernel", run: "^TestThin", must: []string{"TestThinPoolOfADumpIsTheKernels"}},
			{pkg: "backends/devicemapper/loopdev", run: "^Test", must: []string{"TestALoopDeviceEndsWithItsHolder"}},
			{pkg: "backends/devicemapper/dm", run: "^Test", must: []string{"TestALinearDeviceLivesAsLongAsItIsOpen"}},
			{pkg: "backends/devicemapper", run: "^Test([^C]|Conformance$)/^native$", must: []string{"TestConformance/native/Crashes", "TestConformance/native/Content", "TestSizesOnlyGrow/native/xfs", "TestDataAndMetadataOnDisks/native", "TestAThinPoolThatOthersUse/native"}},
		},
	},
	{
		name:    "nbd",
		help:    "the kernel's NBD client with volumes that lamina exports",
		modules: []string{"nbd"},
		tests: []binary{
			{pkg: "integration/vm/kernel", run: "^TestNBD", must: []string{"TestNBDClientOfTheKernel"}},
		},
	},
	{
		name:    "zfs",
		help:    "the native engine of backends/zfs",
		modules: []string{"zfs"},
		zfs:     true,
		tests: []binary{
			{
				pkg: "backends/zfs", run: "^TestConformance$/^native$", must: []string{"TestConformance/native/Crashes", "TestConformance/native/Content"},
				before: [][]string{
					{"truncate", "-s", "8G", "/var/tmp/zpool.img"},
					{"zpool", "create", "-O", "mountpoint=none", "tank", "/var/tmp/zpool.img"},
				},
				env: []string{"LAMINA_ZFS_FSNAME=tank"},
			},
		},
	},
}

// chosen returns the suites that are called so.
func chosen(names string) ([]suite, error) {
	var list []suite
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no suite is called %q; there are: %s", name, suiteNames())
		}
		list = append(list, suites[i])
	}
	return list, nil
}

func suiteNames() string {
	var names []string
	for _, s := range suites {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}
