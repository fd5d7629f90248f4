package poolserver

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/blockpool"
)

// Status tells of a pool as a whole, and of its server. Sizes are in bytes.
type Status struct {
	blockpool.Status
	Dir     string       `json:"dir"`
	Config  ConfigInfo   `json:"config"`
	Exports []ExportInfo `json:"exports,omitempty"`
	// DeadLoops are loop devices over files that a server exported which was killed.
	// They are of no use, and in use.
	DeadLoops []serve.Loop `json:"dead_loops,omitempty"`
	Jobs      []JobInfo    `json:"jobs,omitempty"`
	Server    ServerInfo   `json:"server"`
}

// ServerInfo tells of the process that has the pool.
type ServerInfo struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Idle    string    `json:"idle,omitempty"` // how long it waits for something to do; empty: for ever
}

// ConfigInfo is the configuration of a pool in words.
type ConfigInfo struct {
	DataProfile     string `json:"data_profile"`
	MetadataProfile string `json:"metadata_profile"`
	RecordSize      int64  `json:"record_size"`
	ChunkSize       int64  `json:"chunk_size"`
	MetadataSize    int64  `json:"metadata_size"`
	WhenFull        string `json:"when_full"`
	QueueTimeout    string `json:"queue_timeout"`
	LowWater        int    `json:"low_water"`
	MinFree         int    `json:"min_free"`
	Hook            string `json:"hook,omitempty"`
	Discard         bool   `json:"discard"`
}

func configInfo(c blockpool.Config) ConfigInfo {
	return ConfigInfo{
		DataProfile: c.DataProfile.String(), MetadataProfile: c.MetadataProfile.String(),
		RecordSize: c.RecordSize, ChunkSize: c.ChunkSize, MetadataSize: c.MetadataSize,
		WhenFull: c.WhenFull.String(), QueueTimeout: c.QueueTimeout.String(),
		LowWater: c.LowWater, MinFree: c.MinFree, Hook: c.Hook, Discard: c.Discard,
	}
}

// PoolStatus tells of the pool.
var PoolStatus = Op[None, Status]{name: "pool.status", run: func(c *call, _ None) (Status, error) {
	s := c.server
	st := Status{
		Status: c.pool.Status(), Dir: s.cfg.Place.Dir, Config: configInfo(c.pool.Config()), Exports: s.exportList(), Jobs: s.jobList(),
		Server: ServerInfo{PID: os.Getpid(), Version: s.cfg.Version, Started: s.started},
	}
	st.DeadLoops = s.deadLoops()
	if s.cfg.Idle > 0 {
		st.Server.Idle = s.cfg.Idle.String()
	}
	return st, nil
}}

// Stop are the arguments of [PoolStop].
type Stop struct {
	Force bool `json:"force,omitempty"` // also take exports from who uses them
}

// PoolStop ends the server. [Client.WaitEnd] waits until the pool is let go of.
var PoolStop = Op[Stop, None]{name: "pool.stop", run: func(c *call, a Stop) (None, error) {
	return None{}, c.server.stop(a.Force)
}}

// PoolSync has everything that was written in a durable transaction group.
var PoolSync = Op[None, None]{name: "pool.sync", run: func(c *call, _ None) (None, error) {
	return None{}, c.pool.Sync(c.ctx)
}}

// Events are the arguments of [PoolEvents].
type Events struct {
	After  uint64 `json:"after,omitempty"`  // number of the last event that is known
	Follow bool   `json:"follow,omitempty"` // go on until the client goes away; each event is progress
}

// PoolEvents tells what has happened, the oldest first. What is followed comes as
// [Progress.Event].
var PoolEvents = Op[Events, []blockpool.Event]{name: "pool.events", run: func(c *call, a Events) ([]blockpool.Event, error) {
	if !a.Follow {
		return append([]blockpool.Event{}, c.pool.Events(a.After)...), nil
	}
	news := make(chan struct{}, 1)
	defer c.pool.Listen(func(blockpool.Event) {
		select {
		case news <- struct{}{}:
		default:
		}
	})()
	for {
		for _, e := range c.pool.Events(a.After) {
			c.tell(Progress{Event: e})
			a.After = e.Number
		}
		select {
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		case <-news:
		}
	}
}}

// PoolChange are the arguments of [PoolSet]; what is nil stays.
type PoolChange struct {
	RecordSize   *int64         `json:"record_size,omitempty"`
	MetadataSize *int64         `json:"metadata_size,omitempty"`
	WhenFull     *string        `json:"when_full,omitempty"`
	QueueTimeout *time.Duration `json:"queue_timeout,omitempty"`
	LowWater     *int           `json:"low_water,omitempty"`
	MinFree      *int           `json:"min_free,omitempty"`
	Hook         *string        `json:"hook,omitempty"`
	Discard      *bool          `json:"discard,omitempty"`
}

// PoolSet changes the configuration and returns what it is then.
var PoolSet = Op[PoolChange, ConfigInfo]{name: "pool.set", run: func(c *call, a PoolChange) (ConfigInfo, error) {
	var policy blockpool.FullPolicy
	if a.WhenFull != nil {
		var err error
		if policy, err = blockpool.ParseFullPolicy(*a.WhenFull); err != nil {
			return ConfigInfo{}, fmt.Errorf("when_full: %w", err)
		}
	}
	if a.Hook != nil {
		if err := CheckHook(*a.Hook); err != nil {
			return ConfigInfo{}, err
		}
	}
	err := c.pool.SetConfig(c.ctx, func(to *blockpool.Config) {
		set(&to.RecordSize, a.RecordSize)
		set(&to.MetadataSize, a.MetadataSize)
		set(&to.QueueTimeout, a.QueueTimeout)
		set(&to.LowWater, a.LowWater)
		set(&to.MinFree, a.MinFree)
		set(&to.Hook, a.Hook)
		set(&to.Discard, a.Discard)
		if a.WhenFull != nil {
			to.WhenFull = policy
		}
	})
	return configInfo(c.pool.Config()), err
}}

func set[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

// Stopped ends the server of a pool, if there is one, and returns when the pool is
// free for who opens it. It is for what cannot be done while the pool is open.
func (p Place) Stopped(ctx context.Context, force bool) error {
	c, err := p.Dial()
	if err != nil {
		if err == ErrNotRunning {
			return nil
		}
		return err
	}
	defer c.Close()
	if _, err := PoolStop.Call(ctx, c, Stop{Force: force}); err != nil {
		return err
	}
	return c.WaitEnd(patience)
}
