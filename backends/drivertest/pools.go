package drivertest

import (
	"time"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/fs/fusefs"
)

// poolArg begins the command line by which this program serves a pool.
const poolArg = "drivertest-pool"

// poolIdle is how long such a server waits for something to do: processes of a test
// follow each other at once.
const poolIdle = 2 * time.Second

// PoolCommand is the command line by which the binary of a test that has [Main] serves
// a pool.
func PoolCommand(dir string) []string { return []string{poolArg, dir} }

func servePool(dir string) int {
	err := poolserver.Serve(poolserver.Config{
		Place: poolserver.Place{Dir: dir}, Idle: poolIdle, Log: fusefs.NewLogger(poolArg), Version: "test",
	})
	if err != nil {
		return 1
	}
	return 0
}
