package fusefs

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// The memory of a union's server is mostly its table of nodes, which lives long and is seldom
// looked through: the collector lets it grow by heapGrowth percent only. What a
// request needs lives as long as the request, and while the table is small that
// is nearly all there is: without heapFloor, in bytes, the collector would run
// every thousand requests and take as much time as they do.
const (
	heapFloor  = 8 << 20
	heapGrowth = 40
)

// limitMemory sets the collector to heapFloor and heapGrowth, unless the user has
// set it.
var limitMemory = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		tuneCollector(collectAfter(0))
	}
})

// tuneCollector sets the collector to start again when the heap has grown by so
// many percent, and after each collection to what fits then.
func tuneCollector(percent int) {
	debug.SetGCPercent(percent)
	var again func(*collected)
	again = func(*collected) {
		if now := collectAfter(aliveAfter(percent)); now != percent {
			percent = now
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(new(collected), again)
	}
	runtime.SetFinalizer(new(collected), again)
}

// aliveAfter returns about how many bytes the last collection has found alive, by
// when the next one is due. Package runtime/metrics would tell, but importing it
// costs each start of the program a fifth of a millisecond.
func aliveAfter(percent int) uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NextGC * 100 / uint64(100+percent)
}

// collected is found to be unused by the next collection. Smaller ones share
// their place with others and may be found later.
type collected [16]byte

// collectAfter returns by how many percent a heap with so many bytes alive may
// grow. The runtime adds that it collects no heap below percent × 4 MB / 100.
func collectAfter(live uint64) int {
	const most = heapFloor * 100 / (4 << 20)
	return min(most, max(heapGrowth, heapFloor*100/int(max(live, 1))-100))
}
