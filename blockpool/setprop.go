package blockpool

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// SetProperties gives properties of a dataset, volume or snapshot, or of the pool,
// whose name is "", other values: all of them in one txg, or none. Datasets below that
// have no value of their own inherit those that are inherited. It fails with
// [ErrNotFound], and with [ErrInvalid] for what cannot be set or not to that.
func (p *Pool) SetProperties(ctx context.Context, name string, values map[string]string) error {
	values = maps.Clone(values)
	err := p.do(ctx, &task{run: func(s *pass) error {
		e := s.peekNamed(name)
		if e == nil && name != "" {
			return ErrNotFound
		}
		kept, err := checkProperties(values, typeOf(e))
		if err != nil {
			return err
		}
		for property := range kept {
			if spec := specOf(property); spec != nil && spec.atBirth != "" && e != nil {
				return invalidf("%s cannot be changed: %s", property, spec.atBirth)
			}
		}
		return s.setProperties(e, kept)
	}})
	return failed("set properties of", labelOf(name), err)
}

// labelOf is a name for messages.
func labelOf(name string) string {
	if name == "" {
		return "the pool"
	}
	return name
}

// CheckProperties tells why values cannot be those of a dataset, before there is one.
// It fails with [ErrInvalid].
func CheckProperties(values map[string]string) error {
	_, err := checkProperties(values, onFilesystem)
	return err
}

// checkProperties returns how values are kept, or why they cannot be.
func checkProperties(values map[string]string, on bearer) (map[string]string, error) {
	kept := map[string]string{}
	for _, property := range slices.Sorted(maps.Keys(values)) {
		value, err := checkProperty(property, values[property], on)
		if err != nil {
			return nil, err
		}
		kept[property] = value
	}
	return kept, nil
}

// setProperties stores values that were checked; nil is the pool.
func (s *pass) setProperties(e *entry, kept map[string]string) error {
	if e == nil {
		err := s.setPool(s.poolProps().with(kept))
		s.refresh("")
		return err
	}
	limits, others := splitLimits(kept)
	props := e.props.with(others)
	err := props.checkSize()
	if err == nil {
		err = s.mayLimit(e, limits)
	}
	if err != nil {
		return err
	}
	e = s.change(e.id)
	if len(others) > 0 {
		e.props = props
	}
	for property, n := range limits {
		*specOf(property).limit(e) = n
	}
	s.refresh(e.name)
	return nil
}

// splitLimits takes the limits, which have places of their own, out of properties.
func splitLimits(kept map[string]string) (limits map[string]int64, others map[string]string) {
	limits, others = map[string]int64{}, map[string]string{}
	for property, value := range kept {
		if spec := specOf(property); spec != nil && spec.limit != nil {
			limits[property], _ = strconv.ParseInt(value, 10, 64) // checkProperty has made it
		} else {
			others[property] = value
		}
	}
	return limits, others
}

// mayLimit refuses a reservation that there is no room for.
func (s *pass) mayLimit(e *entry, limits map[string]int64) error {
	get := func(property string, n int64) int64 {
		if l, there := limits[property]; there {
			return l
		}
		return n
	}
	quota, reservation := get("quota", e.quota), get("reservation", e.reservation)
	if quota != 0 && reservation > quota {
		return fmt.Errorf("a reservation of %d bytes is more than the quota of %d: %w", reservation, quota, ErrInvalid)
	}
	if reservation > e.reservation {
		return s.mayReserve(e, reservation)
	}
	return nil
}

// poolProps returns the pool's own properties as this txg has them.
func (s *pass) poolProps() local {
	if s.props != nil {
		return s.props
	}
	return *s.p.props.Load()
}

func (s *pass) setPool(l local) error {
	if err := l.checkSize(); err != nil {
		return err
	}
	s.props = l
	s.batch.Put(meta.Props, []byte(keyPool), l.pack())
	s.after = append(s.after, func() { s.p.props.Store(&l) })
	return nil
}

// InheritProperty takes the value of a property away, so that the one above it, or the
// default, is in force again; with recursive also of all below.
func (p *Pool) InheritProperty(ctx context.Context, name, property string, recursive bool) error {
	err := p.do(ctx, &task{run: func(s *pass) error {
		e := s.peekNamed(name)
		switch spec := specOf(property); {
		case e == nil && name != "":
			return ErrNotFound
		case isUserProperty(property):
		case spec == nil:
			return unknownProperty(property)
		case spec.check == nil:
			return invalidf("%s cannot be set, so it is not inherited", property)
		case spec.atBirth != "" && e != nil:
			return invalidf("%s cannot be changed: %s", property, spec.atBirth)
		case spec.on&typeOf(e) == 0 && !recursive:
			return invalidf("a %v has no %s", typeOf(e), property)
		}
		if name == "" {
			if err := s.setPool(s.poolProps().without(property)); err != nil {
				return err
			}
		}
		for _, x := range s.all() {
			if x.name == name && name != "" || recursive && isBelow(x.name, name) {
				s.dropLocal(x, property)
			}
		}
		s.refresh(name)
		return nil
	}})
	return failed("inherit "+property+" of", labelOf(name), err)
}

// dropLocal takes the value of a property away from an entry.
func (s *pass) dropLocal(e *entry, property string) {
	spec := specOf(property)
	if _, there := e.props[property]; there && (spec == nil || spec.atBirth == "") {
		e = s.change(e.id)
		e.props = e.props.without(property)
	}
	if spec != nil && spec.limit != nil && spec.on&typeOf(e) != 0 && *spec.limit(e) != 0 {
		*spec.limit(s.change(e.id)) = 0
	}
}

// lookup finds properties as this txg has them.
func (s *pass) lookup() lookup { return lookup{s.p, s.peekNamed, s.poolProps()} }
