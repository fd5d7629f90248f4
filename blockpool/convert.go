package blockpool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// A conversion gives the data of a pool another profile while it is in use, as
// btrfs balance does. New chunks have the profile from the beginning on; those that
// are there get it one after the other:
//
//	single → mirror   a column more (reshape.go): records stay at their addresses
//	mirror → single   a column less
//	to or from raidz  records take other sectors there, so they are copied to other
//	                  chunks, and all leaves that name them are changed (relocate.go)
//
// The intent log, whose profile follows that of the data, gets a column more or less.
// Each step is one txg of its own that leaves the pool whole, with chunks of both
// profiles; so a conversion can end anywhere, and go on from what the chunks are.

// The states of a conversion.
const (
	ConvertNone     = "none"     // there was none
	ConvertRunning  = "running"  // one is under way; it goes on when the pool is opened again
	ConvertPaused   = "paused"   // it goes on with Resume, or with another profile
	ConvertFinished = "finished" // all data has the profile
)

// ConvertOptions say how a conversion works.
type ConvertOptions struct {
	Rate   int64 // most bytes of records to read per second; 0: no limit
	Resume bool  // go on with one that was paused; its profile counts
}

// ConvertStatus tells of the conversion that is under way, or of the last one. Done
// and Total are bytes of records that have the profile, and of all, without copies
// and parity.
type ConvertStatus struct {
	State   string `json:"state"`
	Profile string `json:"profile,omitempty"` // that data is to have
	Rate    int64  `json:"rate,omitempty"`
	Progress
	Ended time.Time `json:"ended,omitzero"`
	Lost  uint64    `json:"lost_records"` // that cannot be read, and stay where they are
	Error string    `json:"error,omitempty"`
}

// conversion is what the pool knows of its conversions.
type conversion struct {
	mu      sync.Mutex
	status  ConvertStatus // Progress is filled in when somebody asks
	profile Profile
}

// Convert gives all data of the pool a profile. It refuses with [ErrNoSpace], and
// says how much is lacking, when the devices are too few or too small for what the
// pool holds, and with [ErrIncomplete] while one is not there or has failed.
//
// The end of ctx, [Pool.PauseConvert] and [Pool.StopMove] pause it, and so does an
// error. The end of the process does not: it goes on when the pool is opened again.
func (p *Pool) Convert(ctx context.Context, profile Profile, o ConvertOptions) error {
	err := p.runMove(ctx, func(ctx context.Context) error {
		if o.Resume {
			st := p.ConvertStatus()
			if st.State != ConvertPaused {
				return fmt.Errorf("no conversion is paused: %w", ErrNotFound)
			}
			p.conversion.mu.Lock()
			profile = p.conversion.profile
			p.conversion.mu.Unlock()
		}
		if err := p.beginConvert(ctx, profile, o.Rate); err != nil {
			return err
		}
		return p.convert(ctx)
	})
	if errors.Is(err, errMoveStopped) {
		return nil
	}
	return failed("convert data to", profile.String(), err)
}

// PauseConvert has the conversion that is under way stop where it is, and returns
// when it has stopped. Without one it does nothing.
func (p *Pool) PauseConvert() {
	if st := p.MoveStatus(); st.Running && st.Kind == MoveConvert {
		p.StopMove()
	}
}

// ConvertStatus returns how far the conversion is, or how the last one ended.
func (p *Pool) ConvertStatus() ConvertStatus {
	p.conversion.mu.Lock()
	st, profile := p.conversion.status, p.conversion.profile
	p.conversion.mu.Unlock()
	if st.State == "" {
		return ConvertStatus{State: ConvertNone}
	}
	for _, c := range p.space.all() {
		if c.Class == format.Data {
			st.Total += c.recordBytes()
			if c.Profile == profile {
				st.Done += c.recordBytes()
			}
		}
	}
	if m := p.MoveStatus(); m.Running && m.Kind == MoveConvert {
		st.estimate(m.Began, m.Done)
	}
	return st
}

// beginConvert has new chunks get the profile, and notes that there is a conversion,
// if it can come to its end.
func (p *Pool) beginConvert(ctx context.Context, profile Profile, rate int64) error {
	if profile > RaidZ2 {
		return invalidf("data profile %v", profile)
	}
	if rate < 0 {
		return invalidf("a rate of %d bytes per second", rate)
	}
	return p.do(ctx, &task{run: func(s *pass) error {
		if err := p.mayConvert(profile); err != nil {
			return err
		}
		c := s.config()
		c.DataProfile, c.converted = profile, true
		s.setConfig(c)
		s.after = append(s.after, p.updateRoom)
		return p.noteConvert(s, func(st *ConvertStatus) {
			if st.State != ConvertPaused || st.Profile != profile.String() {
				*st = ConvertStatus{Progress: Progress{Began: time.Now()}}
			}
			p.conversion.profile = profile
			st.State, st.Profile, st.Rate, st.Error, st.Ended = ConvertRunning, profile.String(), rate, "", time.Time{}
		})
	}})
}

// mayConvert refuses what cannot come to its end.
func (p *Pool) mayConvert(profile Profile) error {
	for _, d := range p.devices.all() {
		if !d.sound() || !p.online(d) {
			return fmt.Errorf("device %s is missing or lacks something: attach or replace it first: %w", d.state.Load().path, ErrIncomplete)
		}
	}
	if n := len(p.devices.usable()); n < profile.MinDevices() {
		return fmt.Errorf("profile %v needs %d devices, the pool has %d: add some first: %w", profile, profile.MinDevices(), n, ErrNoSpace)
	}
	log, data := []*chunk{}, int64(0)
	for _, c := range p.space.all() {
		switch c.Class {
		case format.Log:
			log = append(log, c)
		case format.Data:
			data += c.recordBytes()
		}
	}
	widths := p.devices.widths(profile, log)
	if len(widths) == 0 {
		return fmt.Errorf("no device has room for a chunk of profile %v: %w", profile, ErrNoSpace)
	}
	raw := func(bytes, record int64) int64 {
		return (bytes + record - 1) / record * raid.Need(profile, widths[0], record) * format.SectorSize
	}
	need := raw(data, p.Config().RecordSize)
	p.space.mu.Lock()
	for record, sectors := range p.space.promised {
		need += raw(sectors*format.SectorSize, record)
	}
	p.space.mu.Unlock()
	room := p.devices.room(profile, log) * format.SectorSize
	if most := room - room*kept/100; need > most {
		return fmt.Errorf("what the pool holds, and has promised, takes %d bytes as %v; its devices have room for %d: add or grow a device first: %w", need, profile, most, ErrNoSpace)
	}
	return nil
}

// convert does the work, from wherever the chunks are.
func (p *Pool) convert(ctx context.Context) error {
	p.conversion.mu.Lock()
	profile, rate := p.conversion.profile, p.conversion.status.Rate
	p.conversion.mu.Unlock()
	st := p.ConvertStatus()
	ctx, end := p.moves.start(ctx, MoveStatus{Kind: MoveConvert, Profile: profile.String(), Progress: Progress{Total: st.Total - st.Done}})
	p.events.add(Event{Kind: EventDevice, Text: fmt.Sprintf("conversion of the data to %v begins, or goes on", profile)})
	lost, err := p.reshapeAll(ctx, profile, &pace{rate: rate})
	err = cmpCause(ctx, err)
	if errors.Is(err, ErrClosed) {
		end(lost, err)
		return err
	}
	if err != nil && p.hasShadows() {
		err = errors.Join(err, p.dropShadows(ctx))
	}
	if noted := p.do(context.WithoutCancel(ctx), &task{run: func(s *pass) error {
		return p.noteConvert(s, func(st *ConvertStatus) {
			st.State, st.Ended, st.Lost = ConvertFinished, time.Now(), lost
			if err != nil {
				st.State = ConvertPaused
			}
			if err != nil && !errors.Is(err, errMoveStopped) {
				st.Error = err.Error()
			}
		})
	}}); noted != nil && err == nil {
		err = noted
	}
	text := fmt.Sprintf("all data is %v now", profile)
	if err != nil {
		text = fmt.Sprintf("conversion of the data to %v is paused: %v", profile, err)
	}
	p.events.add(Event{Kind: EventDevice, Text: text})
	end(lost, err)
	return err
}

// reshapeAll converts chunks until all have the profile.
func (p *Pool) reshapeAll(ctx context.Context, profile Profile, pace *pace) (lost uint64, err error) {
	tries := map[uint32]int{}
	for {
		if err := context.Cause(ctx); err != nil {
			return lost, err
		}
		if err := p.readOnly(); err != nil {
			return lost, err
		}
		if err := p.removeEmpty(ctx, profile); err != nil {
			return lost, err
		}
		todo := slices.DeleteFunc(p.misfits(profile), func(c *chunk) bool { return tries[c.ID] == mostTries })
		if len(todo) == 0 {
			break
		}
		batch, n, err := p.reshape(ctx, profile, todo, pace)
		lost += n
		if err != nil {
			return lost, err
		}
		for _, c := range batch {
			tries[c.ID]++
		}
	}
	if left := p.misfits(profile); len(left) > 0 {
		return lost, fmt.Errorf("%d chunks stay as they are, since of what they hold %d records cannot be read; destroy or rewrite what these belong to (see the events): %w", len(left), lost, ErrDamaged)
	}
	return lost, nil
}

// reshape converts the first of some chunks, and those that can be along with it.
func (p *Pool) reshape(ctx context.Context, profile Profile, todo []*chunk, pace *pace) (batch []*chunk, lost uint64, err error) {
	first := todo[0]
	alike := func(f func(*chunk) bool) []*chunk {
		list := slices.DeleteFunc(slices.Clone(todo), func(c *chunk) bool { return !sameAddresses(c, profile) || !f(c) })
		return list[:min(len(list), moveBatch)]
	}
	if sameAddresses(first, profile) {
		if len(first.Columns) > p.width(first) {
			batch = alike(func(c *chunk) bool { return len(c.Columns) > p.width(c) })
			lost, err = p.narrow(ctx, batch, pace)
			return batch, lost, err
		}
		batch = alike(func(c *chunk) bool { return len(c.Columns) < p.width(c) })
		if first.Class == format.Log {
			lost, err = p.widenLog(ctx, first, pace)
			return batch, lost, err
		}
		if lost, err = p.widen(ctx, batch, pace); !errors.Is(err, ErrNoSpace) {
			return batch, lost, err
		}
		// There is no room for so much together: record by record there may be.
	}
	return p.relocateSome(ctx, profile, todo, pace)
}

// mostTries is how often a chunk is converted that holds something after that, which
// is what cannot be read.
const mostTries = 3

// sameAddresses reports whether what a chunk holds keeps its addresses in a pool of
// that profile.
func sameAddresses(c *chunk, profile Profile) bool {
	return c.Class == format.Log || c.Profile.Parity() == 0 && profile.Parity() == 0
}

// width returns on how many devices a chunk of one copy or several is to lie.
func (p *Pool) width(c *chunk) int { return p.profileWidth(c.Class) }

// misfits returns the chunks that are not as new ones are, those first that hold the
// least, by which room is gained soonest; and the log last.
func (p *Pool) misfits(profile Profile) []*chunk {
	list := slices.DeleteFunc(p.space.all(), func(c *chunk) bool {
		if c.Class == format.Log {
			return len(c.Columns) == p.width(c)
		}
		return c.Class != format.Data || c.Profile == profile
	})
	slices.SortFunc(list, func(a, b *chunk) int {
		if a.Class != b.Class {
			return int(a.Class) - int(b.Class)
		}
		return int(b.free.Free()) - int(a.free.Free())
	})
	return list
}

// removeEmpty removes the chunks of data of other profiles that hold nothing.
func (p *Pool) removeEmpty(ctx context.Context, profile Profile) error {
	return p.do(ctx, &task{run: func(s *pass) (err error) {
		for _, c := range p.space.all() {
			if c.Class != format.Data || c.Profile == profile {
				continue
			}
			p.space.freeze(c, true)
			if err == nil && c.empty() {
				err = s.removeChunk(c)
			} else {
				p.space.freeze(c, false)
			}
		}
		return err
	}})
}

// keyConvert is the key of the conversion's state in the bucket of properties.
const keyConvert = "convert"

const convertVersion = 1

// Tags of the fields of a conversion's state on disk.
const (
	convertState = iota + 1
	convertProfile
	convertRate
	convertBegan
	convertEnded
	convertLost
	convertError
)

// noteConvert changes what is known of the conversion, and has the txg commit it.
func (p *Pool) noteConvert(s *pass, change func(*ConvertStatus)) error {
	c := &p.conversion
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
	s.batch.Put(meta.Props, []byte(keyConvert), c.packLocked())
	return nil
}

func (c *conversion) packLocked() []byte {
	f := format.NewFields(convertVersion)
	f.String(convertState, c.status.State)
	f.Uint(convertProfile, uint64(c.profile))
	f.Uint(convertRate, uint64(c.status.Rate))
	for tag, t := range map[byte]time.Time{convertBegan: c.status.Began, convertEnded: c.status.Ended} {
		if !t.IsZero() {
			f.Uint(tag, uint64(t.UnixNano()))
		}
	}
	f.Uint(convertLost, c.status.Lost)
	f.String(convertError, c.status.Error)
	return f
}

// unpack is the inverse of packLocked.
func (c *conversion) unpack(b []byte) error {
	c.status = ConvertStatus{}
	var profile uint64
	moment := func(f format.Field, t *time.Time) error {
		var n int64
		err := f.Int(&n)
		*t = time.Unix(0, n)
		return err
	}
	err := format.ParseFields(b, convertVersion, func(f format.Field) error {
		switch f.Tag {
		case convertState:
			c.status.State = f.String()
			return nil
		case convertProfile:
			return f.Uint(&profile)
		case convertRate:
			return f.Int(&c.status.Rate)
		case convertBegan:
			return moment(f, &c.status.Began)
		case convertEnded:
			return moment(f, &c.status.Ended)
		case convertLost:
			return f.Uint(&c.status.Lost)
		case convertError:
			c.status.Error = f.String()
			return nil
		}
		return f.Unknown()
	})
	if err == nil && profile > uint64(RaidZ2) {
		err = damagedf("profile %d", profile)
	}
	c.profile = Profile(profile)
	c.status.Profile = c.profile.String()
	return err
}

// loadConvert reads what was committed of the conversion.
func (p *Pool) loadConvert(view *meta.View) error {
	value, err := view.Get(meta.Props, []byte(keyConvert))
	if err != nil || value == nil {
		return err
	}
	if err := p.conversion.unpack(value); err != nil {
		return fmt.Errorf("state of the conversion: %w", err)
	}
	return nil
}

// converting reports whether the end of the process interrupted a conversion, or one
// runs.
func (p *Pool) converting() bool {
	p.conversion.mu.Lock()
	defer p.conversion.mu.Unlock()
	return p.conversion.status.State == ConvertRunning
}
