package poolserver

import (
	"context"
	"fmt"

	"github.com/laminafs/lamina/blockpool"
)

// Convert are the arguments of [PoolConvert].
type Convert struct {
	Data     string `json:"data,omitempty"`     // profile that data is to have; empty: it keeps its own
	Metadata string `json:"metadata,omitempty"` // single or mirror; empty: it stays as it is
	Replica  string `json:"replica,omitempty"`  // where metadata is mirrored to, absolute; empty: the pool's directory
	Rate     int64  `json:"rate,omitempty"`     // most bytes to read per second; 0: no limit
	Resume   bool   `json:"resume,omitempty"`   // go on with a conversion of data that was paused
	Detach   bool   `json:"detach,omitempty"`   // do not wait for its end
	Pause    bool   `json:"pause,omitempty"`    // pause the one that is under way, and do no more
}

// PoolConvert gives what a pool holds other profiles: metadata at once, by replicas
// that come and go, and data while it is in use.
var PoolConvert = Op[Convert, blockpool.ConvertStatus]{name: "pool.convert", run: func(c *call, a Convert) (st blockpool.ConvertStatus, err error) {
	if a.Pause {
		c.pool.PauseConvert()
		return c.pool.ConvertStatus(), nil
	}
	var data, metadata blockpool.Profile
	if a.Data != "" {
		if data, err = blockpool.ParseProfile(a.Data); err != nil {
			return st, err
		}
	}
	if a.Metadata != "" {
		if metadata, err = blockpool.ParseProfile(a.Metadata); err != nil {
			return st, err
		}
		if err := c.convertMetadata(metadata, a.Replica); err != nil {
			return st, err
		}
	}
	if a.Data != "" || a.Resume {
		err = c.work("convert", a.Detach, func() Progress { return progressOf("", c.pool.MoveStatus().Progress) }, func(ctx context.Context) error {
			return c.pool.Convert(ctx, data, blockpool.ConvertOptions{Rate: a.Rate, Resume: a.Resume})
		})
	}
	return c.pool.ConvertStatus(), err
}}

// convertMetadata adds a replica of the metadata, or lets all but the first go that
// works.
func (c *call) convertMetadata(to blockpool.Profile, path string) error {
	replicas := c.pool.Status().Replicas
	switch {
	case to != blockpool.Single && to != blockpool.Mirror:
		return fmt.Errorf("metadata is kept as whole replicas: take single or mirror, not %v: %w", to, blockpool.ErrInvalid)
	case to == blockpool.Mirror && len(replicas) == 1:
		_, err := PoolReplicaAdd.run(c, Replica{Path: path})
		return err
	case to == blockpool.Single:
		kept := 0
		for i, r := range replicas {
			if r.Problem == "" {
				kept = i
				break
			}
		}
		for i, r := range replicas {
			if i == kept {
				continue
			}
			if _, err := PoolReplicaRemove.run(c, Replica{Path: r.Path}); err != nil {
				return err
			}
		}
	}
	return nil
}
