package blockpool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// ScrubOptions say how a scrub works.
type ScrubOptions struct {
	Rate   int64 // most bytes to read per second, all copies counted; 0: no limit
	Resume bool  // go on with one that was paused, if there is one, instead of beginning anew

	restart bool // the end of the process interrupted it
}

// The states of a scrub.
const (
	ScrubNone     = "none"     // there was none yet
	ScrubRunning  = "running"  // one is under way; it goes on when the pool is opened again
	ScrubPaused   = "paused"   // it goes on with Resume
	ScrubFinished = "finished" // it has looked at everything
	ScrubStopped  = "stopped"  // it was given up
)

// ScrubStatus tells of the scrub that is under way, or of the last one. Sizes
// are in bytes and count every copy and all parity.
type ScrubStatus struct {
	State string `json:"state"`
	Progress
	Ended time.Time `json:"ended,omitzero"`
	Rate  int64     `json:"rate,omitempty"`
	Txg   uint64    `json:"txg,omitempty"` // what it checks was committed with it or before

	Records         uint64 `json:"records"`              // checked
	Mended          int64  `json:"mended"`               // were wrong and are right now
	Unrecoverable   int64  `json:"unrecoverable"`        // are wrong, and stay so
	LostRecords     uint64 `json:"lost_records"`         // that no set of copies has any more
	LostNodes       uint64 `json:"lost_nodes"`           // the same of tree nodes: what is below them was not checked
	RepairedReplica uint64 `json:"repaired_replicas"`    // of the metadata, written anew
	LastError       string `json:"last_error,omitempty"` // why it did not go on
}

// A scrub is what the pool knows of its scrubs.
type scrub struct {
	mu      sync.Mutex
	status  ScrubStatus
	visited ScrubStatus             // as it was when the tour's position was reached: what is committed with that
	cancel  context.CancelCauseFunc // of the one that runs
	ended   chan struct{}           // closed when it has ended
	since   time.Time               // when it began or went on
	before  int64                   // bytes that were done then
	tour    *tour                   // where one that is running or paused is; nil before it knows its txg
	restart bool                    // it was running when the pool was closed
}

// Why a scrub ends before its end.
var (
	errPaused  = errors.New("the scrub was paused")
	errStopped = errors.New("the scrub was stopped")
)

// scrubStep is how many bytes of records are checked while an epoch is held.
const scrubStep = 4 << 20

// scrubSave is how long it takes until its position is committed, when nothing
// else is.
const scrubSave = 5 * time.Second

// Scrub reads every copy of everything that is stored, the replicas of the
// metadata too, and mends what is wrong. It returns at the end, or when it is
// stopped or paused; when ctx ends it is paused. Its position is committed with
// the transaction groups, so that one which the end of the process interrupts
// goes on where it was when the pool is opened again.
//
// It fails with [ErrBusy] while another one runs. What it finds is no error: see
// the status that it returns.
func (p *Pool) Scrub(ctx context.Context, o ScrubOptions) (ScrubStatus, error) {
	if err := p.readOnly(); err != nil {
		return p.ScrubStatus(), fmt.Errorf("scrub: %w", err)
	}
	ctx, done, err := p.jobs.begin(ctx)
	if err != nil {
		return p.ScrubStatus(), fmt.Errorf("scrub: %w", err)
	}
	defer done()
	err = p.runScrub(ctx, o)
	st := p.ScrubStatus()
	switch {
	case err == nil, errors.Is(err, errPaused), errors.Is(err, errStopped):
		return st, nil
	default:
		return st, fmt.Errorf("scrub: %w", err)
	}
}

// ScrubStatus returns how far the scrub is, or how the last one ended.
func (p *Pool) ScrubStatus() ScrubStatus {
	p.scrub.mu.Lock()
	defer p.scrub.mu.Unlock()
	st := p.scrub.status
	if st.State == "" {
		st.State = ScrubNone
	}
	if st.State == ScrubRunning && !p.scrub.since.IsZero() {
		st.estimate(p.scrub.since, st.Done-p.scrub.before)
	}
	return st
}

// PauseScrub has the scrub stop where it is, to go on with Resume. It returns
// when it has stopped. Without one it does nothing.
func (p *Pool) PauseScrub() { p.endScrub(errPaused) }

// StopScrub gives the scrub up, also one that is paused.
func (p *Pool) StopScrub() {
	p.endScrub(errStopped)
	p.scrub.mu.Lock()
	paused := p.scrub.status.State == ScrubPaused
	if paused {
		p.scrub.giveUpLocked(ScrubStopped)
	}
	p.scrub.mu.Unlock()
	if paused {
		p.later(&task{run: p.saveScrub})
	}
}

func (p *Pool) endScrub(why error) {
	p.scrub.mu.Lock()
	cancel, ended := p.scrub.cancel, p.scrub.ended
	waits := cancel == nil && p.scrub.restart
	if waits { // to go on, since the pool was opened
		p.scrub.restart, p.scrub.status.State = false, ScrubPaused
	}
	p.scrub.mu.Unlock()
	if waits {
		p.later(&task{run: p.saveScrub})
	}
	if cancel != nil {
		cancel(why)
		<-ended
	}
}

// runScrub runs one from the beginning, or from where it was, to whatever end.
func (p *Pool) runScrub(ctx context.Context, o ScrubOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := p.beginScrub(o, cancel); err != nil {
		return err
	}
	p.events.add(Event{Kind: EventScrub, Text: "scrub begins, or goes on"})
	err := p.scrubAll(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return p.finishScrub(err)
}

// beginScrub makes this one the scrub of the pool.
func (p *Pool) beginScrub(o ScrubOptions, cancel context.CancelCauseFunc) error {
	s := &p.scrub
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return fmt.Errorf("one is under way: %w", ErrBusy)
	}
	if o.restart && !s.restart {
		return errPaused // or another one has taken its place
	}
	s.cancel, s.ended = cancel, make(chan struct{})
	s.restart = false
	if !o.Resume || s.tour == nil {
		s.status = ScrubStatus{Progress: Progress{Began: time.Now()}}
		if s.tour != nil {
			s.giveUpLocked(ScrubStopped)
		}
	}
	s.status.State, s.status.Rate, s.status.LastError, s.status.Ended = ScrubRunning, o.Rate, "", time.Time{}
	s.since, s.before = time.Now(), s.status.Done
	return nil
}

// scrubAll does the work.
func (p *Pool) scrubAll(ctx context.Context) error {
	w, err := p.scrubTour(ctx)
	if err != nil {
		return err
	}
	// It is durable that there is a scrub before it begins to work, so that it is not
	// forgotten when the process ends now.
	if err := p.do(ctx, nothing()); err != nil {
		return err
	}
	pace := &pace{rate: p.ScrubStatus().Rate}
	saved := time.Now()
	for done := false; !done; {
		if time.Since(saved) > scrubSave {
			saved = time.Now()
			p.later(nothing())
		}
		read := int64(0)
		// A step is short; one that was broken off would be done and counted twice.
		done, err = w.step(context.WithoutCancel(ctx), pace.step(scrubStep), func(rec format.Record) error {
			n, err := p.scrubRecord(rec)
			read += n
			return err
		})
		if err != nil {
			return err
		}
		if err := p.readOnly(); err != nil {
			return err
		}
		if err := pace.pay(ctx, read); err != nil {
			return err
		}
	}
	return nil
}

// scrubTour returns the tour to go on with. A new one begins with the metadata.
func (p *Pool) scrubTour(ctx context.Context) (*tour, error) {
	s := &p.scrub
	s.mu.Lock()
	w := s.tour
	s.mu.Unlock()
	if w != nil {
		return w, nil
	}
	txg, err := p.syncTo(ctx)
	if err != nil {
		return nil, err
	}
	s.set(func(st *ScrubStatus) { st.Txg, st.Total = txg, p.storedBytes() })
	if err := p.scrubMetadata(); err != nil {
		return nil, err
	}
	return p.startScrubTour(0, nil), nil
}

// startScrubTour begins the tour of a scrub behind a node. As long as it is not
// given up, each txg commits where it is.
func (p *Pool) startScrubTour(cursor btree.NodeID, again []btree.NodeID) *tour {
	s := &p.scrub
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visited = s.status
	s.tour = p.startTour(&tour{
		upto: s.status.Txg, cursor: cursor,
		bad: func(id btree.NodeID, err error) {
			s.set(func(st *ScrubStatus) { st.LostNodes++ })
			p.events.add(Event{Kind: EventDamaged, Object: fmt.Sprintf("node %d", id), Text: err.Error()})
		},
		save: func(ps *pass, cursor btree.NodeID, again []btree.NodeID) {
			s.mu.Lock()
			defer s.mu.Unlock()
			st := s.visited
			st.State, st.Rate, st.LastError, st.Ended = s.status.State, s.status.Rate, s.status.LastError, s.status.Ended
			ps.batch.Put(meta.Props, []byte(keyScrub), st.pack(cursor, again))
		},
		done: func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.visited = s.status
		},
	}, again)
	return s.tour
}

// giveUpLocked ends a scrub that will not be gone on with.
func (s *scrub) giveUpLocked(state string) {
	if s.tour != nil {
		s.tour.stop()
	}
	s.tour, s.status.State = nil, state
}

// scrubRecord checks and mends all copies of a record, and returns how many bytes
// it has read.
func (p *Pool) scrubRecord(rec format.Record) (int64, error) {
	c, err := p.space.chunk(rec.Addr)
	var result raid.Result
	if err == nil {
		result, err = p.array.Scrub(&c.Chunk, rec.Addr, int(rec.Size), fits(rec))
	}
	if err != nil && !errors.Is(err, ErrDamaged) {
		return 0, err
	}
	sum := result.Total()
	p.scrub.set(func(st *ScrubStatus) {
		st.Records++
		st.Done += sum.Checked
		st.Mended += sum.Mended
		st.Unrecoverable += sum.Unrecoverable
		if err != nil {
			st.LostRecords++
		}
	})
	if err != nil {
		p.events.add(Event{Kind: EventDamaged, Object: p.ownerName(rec), Text: err.Error()})
	}
	return sum.Checked, nil
}

// ownerName names the volume that has written a record.
func (p *Pool) ownerName(rec format.Record) string {
	if e := p.catalogue.entry(rec.Owner); e != nil {
		return e.name
	}
	return fmt.Sprintf("volume %d", rec.Owner)
}

// scrubMetadata checks the replicas of the metadata, and writes damaged ones
// anew where there is a sound one.
func (p *Pool) scrubMetadata() error {
	bad, err := p.meta.Verify()
	if err != nil {
		return err
	}
	if len(bad) == 0 || len(bad) == len(p.meta.Replicas())-len(p.meta.Failed()) {
		return nil // none is sound: what the nodes of the trees have lost is counted there
	}
	for path := range bad {
		if err := p.meta.Recopy(path); err != nil {
			return fmt.Errorf("write replica %s anew: %w", path, err)
		}
		p.scrub.set(func(st *ScrubStatus) { st.RepairedReplica++ })
	}
	return nil
}

// finishScrub notes how the scrub has ended.
func (p *Pool) finishScrub(err error) error {
	s := &p.scrub
	s.mu.Lock()
	st := &s.status
	switch {
	case err == nil:
		s.giveUpLocked(ScrubFinished)
	case errors.Is(err, ErrClosed):
		// The last txg commits that it is running, and where.
	case errors.Is(err, errStopped):
		s.giveUpLocked(ScrubStopped)
	default:
		st.State = ScrubPaused
		if !errors.Is(err, errPaused) {
			st.LastError = err.Error()
		}
	}
	st.Ended = time.Now()
	text := fmt.Sprintf("scrub %s: %d records, %d bytes mended, %d unrecoverable", st.State, st.Records, st.Mended, st.Unrecoverable)
	s.cancel = nil
	close(s.ended)
	s.mu.Unlock()
	if errors.Is(err, ErrClosed) {
		p.later(&task{run: p.saveScrub})
		return err
	}
	p.events.add(Event{Kind: EventScrub, Text: text})
	// It is durable how it ended before anybody is told, so that one that is said to
	// have finished does not go on after a crash. Where that cannot be, it goes on.
	_ = p.do(context.Background(), &task{run: p.saveScrub})
	return err
}

func (s *scrub) set(change func(*ScrubStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// saveScrub has a txg commit the state of the scrub. Where there is a tour, it
// does so by itself.
func (p *Pool) saveScrub(s *pass) error {
	p.scrub.mu.Lock()
	defer p.scrub.mu.Unlock()
	if p.scrub.tour == nil {
		s.batch.Put(meta.Props, []byte(keyScrub), p.scrub.status.pack(0, nil))
	}
	return nil
}

// loadScrub reads what was committed of the scrub.
func (p *Pool) loadScrub(view *meta.View) error {
	value, err := view.Get(meta.Props, []byte(keyScrub))
	if err != nil || value == nil {
		return err
	}
	cursor, again, err := p.scrub.status.unpack(value)
	if err != nil {
		return fmt.Errorf("state of the scrub: %w", err)
	}
	state := p.scrub.status.State
	p.scrub.restart = state == ScrubRunning
	if state == ScrubRunning || state == ScrubPaused {
		p.startScrubTour(cursor, again)
	}
	return nil
}

// continueScrub goes on with a scrub that the end of the process interrupted.
func (p *Pool) continueScrub() {
	if p.scrub.restart {
		rate := p.scrub.status.Rate
		p.background(EventScrub, "scrub", func(ctx context.Context) error {
			return p.runScrub(ctx, ScrubOptions{Rate: rate, Resume: true, restart: true})
		})
	}
}

// syncTo makes everything durable that came before, and returns the txg in which
// it is.
func (p *Pool) syncTo(ctx context.Context) (txg uint64, err error) {
	err = p.do(ctx, &task{run: func(s *pass) error { txg = s.g.number; return nil }})
	return txg, err
}

// storedBytes returns about how many bytes are in use on devices, copies and
// parity counted.
func (p *Pool) storedBytes() (n int64) {
	for _, c := range p.space.all() {
		used := (c.Sectors - int64(c.free.Free())) * format.SectorSize
		if c.Profile == Mirror {
			used *= int64(len(c.Columns))
		}
		if c.Class != format.Log {
			n += used
		}
	}
	return n
}
