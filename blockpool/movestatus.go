package blockpool

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// The kinds of moves.
const (
	MoveNone     = "none"
	MoveRemove   = "remove"   // a device is emptied to leave
	MoveReplace  = "replace"  // another takes its place
	MoveResilver = "resilver" // a device that was away gets what it has missed
	MoveConvert  = "convert"  // data gets another profile
)

// MoveStatus tells of a device that is being removed, replaced or resilvered, or of
// data that is being converted, or of the last that was. Sizes are in bytes of
// records.
type MoveStatus struct {
	Kind    string `json:"kind"`
	Running bool   `json:"running"`
	Device  string `json:"device,omitempty"`
	Heir    string `json:"heir,omitempty"`    // what takes its place
	Profile string `json:"profile,omitempty"` // what data is converted to
	Progress
	Ended time.Time `json:"ended,omitzero"`
	Lost  uint64    `json:"lost_records"` // that could not be read any more
	Error string    `json:"error,omitempty"`
}

// moves is the move that is under way, or the last one.
type moves struct {
	mu     sync.Mutex
	status MoveStatus
	cancel context.CancelCauseFunc
	ended  chan struct{}
}

// errMoveStopped is why a move ends that is stopped.
var errMoveStopped = errors.New("it was stopped")

// MoveStatus returns how far the move of a device is, or how the last one ended
// since the pool was opened.
func (p *Pool) MoveStatus() MoveStatus {
	p.moves.mu.Lock()
	defer p.moves.mu.Unlock()
	st := p.moves.status
	if st.Kind == "" {
		st.Kind = MoveNone
	}
	if st.Running {
		st.estimate(st.Began, st.Done)
	}
	return st
}

// StopMove ends the removal, replacement, resilver or conversion that is under way, and
// returns when it has ended. What was moved so far stays where it is now, and the
// device stays in the pool; one that is resilvered goes on when it is attached or
// the pool is opened again. Without a move it does nothing.
func (p *Pool) StopMove() {
	p.moves.mu.Lock()
	cancel, ended := p.moves.cancel, p.moves.ended
	p.moves.mu.Unlock()
	if cancel != nil {
		cancel(errMoveStopped)
		<-ended
	}
}

// start makes st the move under way. end is to be called with its result.
func (m *moves) start(ctx context.Context, st MoveStatus) (_ context.Context, end func(lost uint64, err error)) {
	ctx, cancel := context.WithCancelCause(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	st.Running, st.Began = true, time.Now()
	ended := make(chan struct{})
	m.status, m.cancel, m.ended = st, cancel, ended
	return ctx, func(lost uint64, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.status.Running, m.status.Ended, m.status.Lost = false, time.Now(), lost
		if err != nil {
			m.status.Error = err.Error()
		}
		m.cancel = nil
		cancel(nil)
		close(ended)
	}
}

// did counts bytes of records.
func (m *moves) did(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Done += n
}

// recordBytes returns about how many bytes of records have a part on a device.
func (p *Pool) recordBytes(d *device) (n int64) {
	for _, c := range p.space.all() {
		if c.Class != format.Log && c.column(d.id) >= 0 {
			n += c.recordBytes()
		}
	}
	return n
}

// recordBytes returns about how many bytes of records a chunk holds.
func (c *chunk) recordBytes() int64 {
	used := (c.Sectors - int64(c.free.Free())) * format.SectorSize
	if parity := c.Profile.Parity(); parity > 0 {
		used = used * int64(len(c.Columns)-parity) / int64(len(c.Columns))
	}
	return used
}
