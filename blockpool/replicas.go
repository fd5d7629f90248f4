package blockpool

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// AddReplica makes another replica of the metadata, in a file that is not there
// yet; there may be three. Commits wait while it is written.
//
//	Crash before the labels: a replica that they do not name. It is found by who
//	                         opens its directory, and is in the way of another try.
//	Crash after them:        it is one of the pool's.
func (p *Pool) AddReplica(ctx context.Context, path string) error {
	err := p.readOnly()
	if err == nil {
		path, err = absolute(path)
	}
	if err == nil {
		err = p.meta.AddReplica(path)
	}
	if err == nil {
		err = p.labelReplicas(ctx)
	}
	if err == nil {
		p.events.add(Event{Kind: EventReplica, Object: path, Text: "replica was added"})
	}
	return failed("add replica", path, err)
}

// RemoveReplica lets a replica of the metadata go, and removes its file. The last
// one that works stays.
//
//	Crash before the labels: they name a replica that is behind. It is written anew
//	                         when the pool is opened, and can be removed again.
//	Crash after them:        a file that is no replica, in its directory. Who opens
//	                         the pool by the directory takes it in again.
func (p *Pool) RemoveReplica(ctx context.Context, path string) error {
	err := p.readOnly()
	if err == nil {
		path, err = absolute(path)
	}
	if err == nil {
		err = p.meta.RemoveReplica(path)
	}
	if err == nil {
		err = p.labelReplicas(ctx)
	}
	if err == nil {
		if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		p.events.add(Event{Kind: EventReplica, Object: path, Text: "replica was removed"})
	}
	return failed("remove replica", path, err)
}

// RecopyReplica writes a replica of the metadata anew from the others, whether it
// has failed or not: without its free pages it is smaller.
//
//	Crash before the labels: they may call a good replica failed, until the next ones.
func (p *Pool) RecopyReplica(ctx context.Context, path string) error {
	err := p.readOnly()
	if err == nil {
		path, err = absolute(path)
	}
	if err == nil {
		err = p.meta.Recopy(path)
	}
	if err == nil {
		err = p.labelReplicas(ctx)
	}
	return failed("write replica", path, err)
}

// labelReplicas has the labels name the replicas as they are, and the profile of
// the metadata say how many there are.
func (p *Pool) labelReplicas(ctx context.Context) error {
	var labels error
	err := p.do(ctx, &task{run: func(s *pass) error {
		c := s.config()
		old := c.MetadataProfile
		c.MetadataProfile = Single
		if len(p.replicaPaths()) > 1 {
			c.MetadataProfile = Mirror
		}
		if c.MetadataProfile != old {
			s.setConfig(c)
		}
		s.after = append(s.after, func() { labels = p.writeLabels(s.g.number) })
		return nil
	}})
	if err == nil && labels != nil {
		err = fmt.Errorf("no label names it: %w", labels)
	}
	return err
}
