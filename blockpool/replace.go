package blockpool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ReplaceDevice has a new device take the place of an old one, while everything
// goes on: what the old one holds is copied, or where it is missing or faulted,
// rebuilt from the others; then the old one leaves the pool. The new device must
// have room for all that the old one holds, else [ErrNoSpace].
//
// The end of ctx, and [Pool.StopMove], end it: both devices stay in the pool. The
// end of the process does not: when the pool is opened again, it goes on.
func (p *Pool) ReplaceDevice(ctx context.Context, old string, spec DeviceSpec, force bool) error {
	return failed("replace device", old, p.runMove(ctx, func(ctx context.Context) error {
		d, err := p.findDevice(old)
		if err != nil {
			return err
		}
		heir, err := p.addDevice(ctx, spec, force, d)
		if err != nil {
			return err
		}
		return p.replace(ctx, d, heir)
	}))
}

// inherit refuses an heir on which not all fits that the old device has. The old
// one gets new chunks like any other until the heir has all; but if the heir has
// no room for chunks that are empty, they are removed, and there are no new ones.
func (s *pass) inherit(d, heir *device) error {
	chunks := s.p.space.all()
	if _, err := planMoves(d, []*device{heir}, chunks, s.allChunks(), math.MaxInt); err == nil && heir.state.Load().size >= d.state.Load().size {
		return nil
	}
	chunks = slices.DeleteFunc(chunks, (*chunk).empty)
	if _, err := planMoves(d, []*device{heir}, chunks, s.allChunks(), math.MaxInt); err != nil {
		return err
	}
	st := s.deviceState(d)
	st.leaving = true
	s.saveDevice(d, st)
	s.after = append(s.after, s.p.updateRoom)
	return nil
}

// replace moves what a device holds to its heir, and forgets the device. A device
// that cannot be read leaves, also when records cannot be rebuilt without it.
func (p *Pool) replace(ctx context.Context, d, heir *device) error {
	if d == nil { // it was forgotten, and this is what is left to do
		return p.stay(ctx, heir)
	}
	path, to := d.state.Load().path, heir.state.Load().path
	ctx, end := p.moves.start(ctx, MoveStatus{Kind: MoveReplace, Device: path, Heir: to, Progress: Progress{Total: p.recordBytes(d)}})
	p.events.add(Event{Kind: EventDevice, Object: path, Text: "device is being replaced by " + to})
	lost, err := p.vacate(ctx, d, heir, d.dev != nil && p.online(d))
	if err == nil {
		err = p.forget(ctx, d, heir.id)
	}
	err = cmpCause(ctx, err)
	if err != nil && !errors.Is(err, ErrClosed) {
		err = errors.Join(err, p.stay(ctx, d, heir))
		p.events.add(Event{Kind: EventDevice, Object: path, Text: fmt.Sprintf("device is not replaced: %v", err)})
	}
	end(lost, err)
	return err
}
