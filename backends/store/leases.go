package store

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Lease keeps layers from being removed until it is given back or runs out: an
// image that is being loaded needs layers which nothing else names yet.
type Lease struct {
	ID      string    `json:"id"`
	Layers  []string  `json:"layers"`
	Expires time.Time `json:"expires"`
}

func (l *Lease) expired() bool { return !time.Now().Before(l.Expires) }

// NewLease makes a lease without layers.
func (s *Store) NewLease(duration time.Duration) (Lease, error) {
	l := Lease{ID: newID(), Expires: time.Now().UTC().Add(duration)}
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
		if _, err := t.layer(layer); err != nil {
			return err
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
