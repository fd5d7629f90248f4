// Package machine is what the two sides of integration/vm say to each other: the
// host writes a [Job] into the machine as /job.json, and the machine writes
// results to its second serial port.
//
// What a test prints goes there as it is. Lines that begin with [Mark] are the
// machine's own:
//
//	@@vm start N        the test binary number N of the job begins
//	@@vm end N ERROR    it ended; without ERROR as it should
//	@@vm fail ERROR     the machine cannot go on
//	@@vm over           all is done
package machine

// Mark begins the lines of the machine's own.
const Mark = "@@vm "

// JobPath is where the machine has the job.
const JobPath = "/job.json"

// A Job is what a machine does.
type Job struct {
	Modules []string `json:"modules"` // loaded first
	Tests   []Test   `json:"tests"`
}

// A Test is one compiled package of tests.
type Test struct {
	Suite   string   `json:"suite"`
	Package string   `json:"package"`
	Path    string   `json:"path"` // in the machine
	Run     string   `json:"run"`  // -test.run
	Must    []string `json:"must"` // tests that have to pass
	// Before are programs that run first, and Env is added to the environment.
	Before [][]string `json:"before,omitempty"`
	Env    []string   `json:"env,omitempty"`
}
