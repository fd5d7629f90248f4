package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/laminafs/lamina/backends/driver"
)

// A Lease keeps layers from being removed until it is given back, runs out, or its
// process ends: an image that is being loaded needs layers which nothing else names
// yet.
type Lease struct {
	ID     string   `json:"id"`
	Layers []string `json:"layers"`
	// Expires is when it runs out, zero for never.
	Expires time.Time `json:"expires,omitzero"`
	// Owner is the process that it ends with, "" for none.
	Owner string `json:"owner,omitempty"`
}

func (l *Lease) expired() bool { return !l.Expires.IsZero() && !time.Now().Before(l.Expires) }

// NewLease makes a lease without layers, which runs out.
func (s *Store) NewLease(duration time.Duration) (Lease, error) {
	return s.addLease(Lease{ID: newID(), Expires: time.Now().UTC().Add(duration)})
}

// OwnLease makes a lease without layers, which ends with this process at the latest.
// Layers that were created under it and not committed go then.
func (s *Store) OwnLease() (Lease, error) {
	return s.addLease(Lease{ID: newID(), Owner: s.owner()})
}

func (s *Store) addLease(l Lease) (Lease, error) {
	if err := s.update(func(t *tx) error { return t.put("leases", l.ID, l) }); err != nil {
		return l, fmt.Errorf("make a lease: %w", err)
	}
	return l, nil
}

// Hold puts a layer under a lease. The layer must be there, so a caller that
// finds a layer and then holds it knows that it stays. [ErrNoLease] for one that
// ran out.
func (s *Store) Hold(lease, layer string) error {
	err := s.update(func(t *tx) error {
		var l Lease
		known, err := t.get("leases", lease, &l)
		if err == nil && (!known || l.expired()) {
			err = ErrNoLease
		}
		if err != nil {
			return err
		}
		switch l, err := t.any(layer); {
		case err != nil:
			return err
		case l.Store != "":
			return nil // nobody removes it here
		}
		if !slices.Contains(l.Layers, layer) {
			l.Layers = append(l.Layers, layer)
		}
		return t.put("leases", lease, l)
	})
	if err != nil {
		return fmt.Errorf("lease %s: hold layer %s: %w", lease, layer, err)
	}
	return nil
}

// Release gives a lease back. One that is gone is none to give back.
func (s *Store) Release(lease string) error {
	return s.update(func(t *tx) error { return t.delete("leases", lease) })
}

// endLeases gives back the leases of processes that died, and takes away what they had
// begun under them.
func (s *Store) endLeases(ctx context.Context, leases []Lease) error {
	for _, lease := range leases {
		if lease.Owner == "" || s.lives(lease.Owner) {
			continue
		}
		layers, err := s.Layers()
		if err != nil {
			return err
		}
		for _, l := range layers {
			if l.Lease != lease.ID || l.Kind != Active {
				continue
			}
			// Crash in between: the lease is still there for the next who opens.
			if err := s.abandon(ctx, &l); err != nil {
				return err
			}
		}
		if err := s.Release(lease.ID); err != nil {
			return err
		}
	}
	return nil
}

// abandon removes a layer that was being filled, also while it is mounted.
func (s *Store) abandon(ctx context.Context, l *Layer) error {
	at, err := s.Driver.Mounts(l.ID)
	if err == nil && len(at) > 0 {
		err = s.Driver.Unmount(ctx, l.ID, "", false)
	}
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	if err = s.Remove(ctx, l.Name); errors.Is(err, driver.ErrNotFound) {
		err = nil // another process was faster
	}
	return err
}

// Leases returns those that have not run out.
func (s *Store) Leases() (list []Lease, err error) {
	err = s.view(func(t *tx) error {
		list, err = all[Lease](t, "leases")
		return err
	})
	return slices.DeleteFunc(list, func(l Lease) bool { return l.expired() }), err
}

// dropExpired removes leases that ran out.
func (s *Store) dropExpired() error {
	return s.update(func(t *tx) error {
		leases, err := all[Lease](t, "leases")
		for _, l := range leases {
			if l.expired() {
				err = errors.Join(err, t.delete("leases", l.ID))
			}
		}
		return err
	})
}
