package blockpool

import (
	"errors"
	"fmt"
	"os"
)

// Destroy makes the pool that a path leads to no pool: it takes the labels from
// the devices and removes the metadata. What the devices hold is not wiped, and
// they can be used for another pool. The pool must not be open.
//
// Crash after a label: the pool is incomplete, and Destroy does the rest. A
// device that is missing keeps its label; it is named in the error, which comes
// after everything else is done.
func Destroy(path string, o OpenOptions) error {
	o.ReadOnly = true
	if o.Storage == nil {
		o.Storage = Files
	}
	replicas, devices, err := dissolve(path, o)
	if err == nil {
		for _, name := range replicas {
			if e := os.Remove(name); e != nil && !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
		err = errors.Join(err, devices)
	}
	if err != nil {
		return fmt.Errorf("destroy pool %s: %w", path, err)
	}
	return nil
}

// dissolve clears the labels, and returns the metadata's files and what could not
// be cleared.
func dissolve(path string, o OpenOptions) (replicas []string, devices, err error) {
	p := &Pool{
		tune: o.Tunables.withDefaults(), space: newSpace(), catalogue: newCatalogue(),
	}
	p.epochs.after = p.releaseFreed
	p.nodes = newNodeCache(p.tune.NodeCache)
	p.readCache = newReadCache(p.tune.ReadCache)
	defer func() { err = errors.Join(err, p.letGo()) }()
	if err := p.openMetadata(path, &o); err != nil {
		return nil, nil, err
	}
	view, err := p.meta.View()
	if err != nil {
		return nil, nil, err
	}
	p.epochs.advance(&epoch{txg: p.meta.Txg(), view: view, pool: p}, nil)
	if err := p.loadConfig(view); err != nil {
		return nil, nil, err
	}
	if err := p.loadDevices(view, &o); err != nil {
		return nil, nil, err
	}
	for _, d := range p.devices.all() {
		if d.dev == nil {
			devices = errors.Join(devices, fmt.Errorf("%s is missing and keeps its label: %w", d.state.Load().path, ErrIncomplete))
			continue
		}
		if err := clearLabel(d.dev); err != nil {
			return nil, nil, err
		}
	}
	return p.replicaPaths(), devices, nil
}
