// Package memdev keeps devices in memory, for tests of what stores data on
// [vdev.Device]s: it records what the devices were told, builds what could be
// on them after a crash, and makes them fail, lie and decay.
//
//	        code under test
//	   Write │ Sync │ Discard          Mark, Add
//	   ┌─────▼──────▼─────▼───┐            │
//	   │ Device … Device      │── faults   │
//	   └─────┬────────────────┘            │
//	┌────────▼─────────────────────────────▼───┐
//	│ Journal: one order of all that happened  │
//	└────────┬─────────────────────────────────┘
//	         │ State(at, seed)
//	   ┌─────▼──────────────────────────────┐
//	   │ State: devices after that crash,   │
//	   │ recording into a Journal again     │
//	   └────────────────────────────────────┘
//
// # Recording
//
// A [Journal] is the host of some devices. [Journal.Create] and [Journal.Open]
// have the signatures of [vdev.Create] and [vdev.Open], so code that takes
// those as functions runs on it unchanged. Everything that devices do is
// entered in one global order. A test adds marks ("write 17 was acknowledged"),
// and a store that is not made of devices, such as a database whose commits are
// atomic, adds entries of its own.
//
// # Crashes
//
// [Journal.State] builds the devices as a crash after any number of entries
// could have left them. With seed 0 everything written is there: the process
// was killed and the machine lived on. With any other seed the power failed:
// what a device completed a Sync for is there, and of what came later, writes
// are kept, lost or torn (at units of 512 or of 4096 bytes), as the seed says.
// The same position and seed give the same state in every run.
//
//	for s := range j.CrashStates(1) {
//		pool, err := Open(s.Journal.Open, …)
//		… check everything that s.Marks() says was acknowledged …
//		if enough { break }
//	}
//
// States share all pages that they do not change, with each other and with the
// journal: one costs microseconds, whatever the size of the devices. They are
// independent, and may be built and used in parallel. Since a state's devices
// record too, a crash during recovery is a crash state of the state's journal.
//
// # Faults
//
// [Device.Inject] and [Journal.Inject] make chosen operations fail, be
// acknowledged without being done, land elsewhere or take long; the journal's
// count operations over all its devices, so that "the Nth of all" can fail.
// [Device.Poke], [Device.FlipBits], [Device.Scribble] and [Device.Zero] damage
// bytes at rest. [Device.Pull] unplugs a device until [Device.Return].
//
// Everything may be called from several goroutines at once.
package memdev
