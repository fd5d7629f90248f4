package poolserver

import (
	"context"

	"github.com/laminafs/lamina/blockpool"
)

// Scrub are the arguments of [PoolScrub].
type Scrub struct {
	Rate   int64 `json:"rate,omitempty"`   // most bytes to read per second; 0: no limit
	Resume bool  `json:"resume,omitempty"` // go on with one that was paused
	Detach bool  `json:"detach,omitempty"` // do not wait for its end
}

// PoolScrub reads every copy of everything and mends what is wrong.
var PoolScrub = Op[Scrub, blockpool.ScrubStatus]{name: "pool.scrub", run: func(c *call, a Scrub) (blockpool.ScrubStatus, error) {
	err := c.work("scrub", a.Detach, func() Progress { return progressOf("", c.pool.ScrubStatus().Progress) }, func(ctx context.Context) error {
		_, err := c.pool.Scrub(ctx, blockpool.ScrubOptions{Rate: a.Rate, Resume: a.Resume})
		return err
	})
	return c.pool.ScrubStatus(), err
}}

// work runs a job and, unless detach is set, waits for its end.
func (c *call) work(name string, detach bool, look func() Progress, run func(context.Context) error) error {
	j, err := c.server.startJob(name, func(ctx context.Context, tell func(Progress)) error {
		defer watch(tell, look)()
		return run(ctx)
	})
	if err != nil || detach {
		return err
	}
	return j.follow(c)
}

// ScrubControl are the arguments of [PoolScrubControl].
type ScrubControl struct {
	Pause bool `json:"pause,omitempty"` // to go on later, instead of giving it up
}

// PoolScrubControl pauses or stops the scrub that is under way.
var PoolScrubControl = Op[ScrubControl, blockpool.ScrubStatus]{name: "pool.scrub.control", run: func(c *call, a ScrubControl) (blockpool.ScrubStatus, error) {
	if a.Pause {
		c.pool.PauseScrub()
	} else {
		c.pool.StopScrub()
	}
	return c.pool.ScrubStatus(), nil
}}

// Device are the arguments of what is done to a device.
type Device struct {
	Path  string `json:"path"`            // of the device, absolute
	Size  int64  `json:"size,omitempty"`  // in bytes: of a file to be made, or of one that is to grow
	Heir  string `json:"heir,omitempty"`  // what takes its place, or where it is now; absolute
	Force bool   `json:"force,omitempty"` // take one that has something on it
	Stop  bool   `json:"stop,omitempty"`  // end what is under way
}

func (c *call) moved() Progress {
	m := c.pool.MoveStatus()
	return progressOf(m.Device, m.Progress)
}

// PoolAdd takes a device into the pool.
var PoolAdd = Op[Device, None]{name: "pool.add", run: func(c *call, a Device) (None, error) {
	return None{}, c.pool.AddDevice(c.ctx, blockpool.DeviceSpec{Path: a.Path, Size: a.Size}, a.Force)
}}

// PoolRemove moves all that a device holds to the others and lets it go.
var PoolRemove = Op[Device, None]{name: "pool.remove", run: func(c *call, a Device) (None, error) {
	if a.Stop {
		c.pool.StopMove()
		return None{}, nil
	}
	return None{}, c.work("remove "+a.Path, false, c.moved, func(ctx context.Context) error { return c.pool.RemoveDevice(ctx, a.Path) })
}}

// PoolReplace has another device take the place of one.
var PoolReplace = Op[Device, None]{name: "pool.replace", run: func(c *call, a Device) (None, error) {
	return None{}, c.work("replace "+a.Path, false, c.moved, func(ctx context.Context) error {
		return c.pool.ReplaceDevice(ctx, a.Path, blockpool.DeviceSpec{Path: a.Heir, Size: a.Size}, a.Force)
	})
}}

// PoolGrow makes use of a device that has become longer, or makes a file longer.
var PoolGrow = Op[Device, None]{name: "pool.grow", run: func(c *call, a Device) (None, error) {
	return None{}, c.pool.Grow(c.ctx, a.Path, a.Size)
}}

// PoolOnline takes a device into use again that was missing or has failed.
var PoolOnline = Op[Device, None]{name: "pool.online", run: func(c *call, a Device) (None, error) {
	return None{}, c.work("resilver "+a.Path, false, c.moved, func(ctx context.Context) error { return c.pool.ReattachDevice(ctx, a.Path, a.Heir) })
}}
