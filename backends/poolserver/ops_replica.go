package poolserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/laminafs/lamina/blockpool"
)

// Replica are the arguments of what is done to a replica of the metadata.
type Replica struct {
	// Path is the file, absolute. Empty, for one to be added: in the pool's directory.
	Path string `json:"path,omitempty"`
}

// PoolReplicaAdd makes another replica of the metadata. The result of this and the
// next two are the replicas as they are then.
var PoolReplicaAdd = Op[Replica, []blockpool.ReplicaStatus]{name: "pool.replica.add", run: func(c *call, a Replica) ([]blockpool.ReplicaStatus, error) {
	place := c.server.cfg.Place
	if a.Path == "" {
		a.Path = place.freeReplica()
	}
	if err := c.pool.AddReplica(c.ctx, a.Path); err != nil {
		return nil, err
	}
	// Crash before the link: the labels name the replica, and who opens the pool by
	// its directory goes on without it.
	if err := place.linkReplica(a.Path); err != nil {
		return nil, fmt.Errorf("replica %s is there, but the pool's directory does not lead to it: %w; remove it and add it again", a.Path, err)
	}
	return c.pool.Status().Replicas, nil
}}

// PoolReplicaRemove lets a replica of the metadata go.
var PoolReplicaRemove = Op[Replica, []blockpool.ReplicaStatus]{name: "pool.replica.remove", run: func(c *call, a Replica) ([]blockpool.ReplicaStatus, error) {
	if err := c.pool.RemoveReplica(c.ctx, a.Path); err != nil {
		return nil, err
	}
	// Crash before this: a link that leads nowhere, which counts as a failed replica
	// until it is removed again.
	if err := c.server.cfg.Place.unlinkReplica(a.Path); err != nil {
		return nil, fmt.Errorf("replica %s is removed, but a link to it is left: %w", a.Path, err)
	}
	return c.pool.Status().Replicas, nil
}}

// PoolReplicaRecopy writes a replica of the metadata anew from the others.
var PoolReplicaRecopy = Op[Replica, []blockpool.ReplicaStatus]{name: "pool.replica.recopy", run: func(c *call, a Replica) ([]blockpool.ReplicaStatus, error) {
	if err := c.pool.RecopyReplica(c.ctx, a.Path); err != nil {
		return nil, err
	}
	return c.pool.Status().Replicas, nil
}}

// freeReplica returns a name in the directory that no replica has.
func (p Place) freeReplica() string {
	for i := 0; ; i++ {
		name := blockpool.ReplicaName(p.Dir, i)
		if _, err := os.Lstat(name); err != nil {
			return name
		}
	}
}

// links returns the names in the directory that lead to replicas which lie
// elsewhere, with where they lead to.
func (p Place) links() map[string]string {
	names, _ := filepath.Glob(filepath.Join(p.Dir, "meta-*.db")) // fails for a bad pattern only
	links := map[string]string{}
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil {
			if !filepath.IsAbs(to) {
				to = filepath.Join(p.Dir, to)
			}
			links[name] = to
		}
	}
	return links
}

// linkReplica has a replica that lies elsewhere found from the directory.
func (p Place) linkReplica(path string) error {
	if filepath.Dir(path) == p.Dir && isReplica(path) {
		return nil
	}
	for _, to := range p.links() {
		if to == path {
			return nil // left of one that was removed
		}
	}
	return os.Symlink(path, p.freeReplica())
}

// unlinkReplica ends what linkReplica did.
func (p Place) unlinkReplica(path string) (err error) {
	for name, to := range p.links() {
		if to == path {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}
