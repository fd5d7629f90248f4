package blockpool

import (
	"context"
	"fmt"
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/intent"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// A pool whose intent log is lost has all that was committed, and none of what was
// flushed after that. It does not open by itself, since somebody may still find the
// device with the log; repair makes a new log when it is told that what the old one
// held is given up, as zpool import -m does.

// aLostLog is an intent log that cannot be read.
type aLostLog struct {
	chunk *raid.Chunk // where it was, if that is known
	why   error       // nil: it is not lost
}

// smallestChange is what the least change takes of the log, in bytes: a header,
// and a payload rounded up to 8.
const smallestChange = 56

// logAhead is how many transaction groups a log may have that are not committed.
const logAhead = 3

// findLog makes sure that the intent log can be read; if not, it is as good as gone.
func (s *salvager) findLog() {
	i := slices.IndexFunc(s.chunks, func(c *raid.Chunk) bool { return c.Class == format.Log })
	if i < 0 {
		if s.lostLog.why == nil {
			s.lostLog.why = damagedf("nothing says where it was")
		}
		return
	}
	area := &logArea{p: &Pool{array: s.array}}
	area.chunk.Store(&chunk{Chunk: *s.chunks[i]})
	_, err := intent.Replay(area, s.guid, s.txg, func(uint64, intent.Kind, []byte) error { return nil })
	if err != nil {
		s.lostLog = aLostLog{s.chunks[i], err}
		s.chunks = slices.Delete(s.chunks, i, i+1)
	}
}

// makeLog finds a place for a new log where the old one is lost, and says what that
// one held at most.
func (s *salvager) makeLog() error {
	if s.lostLog.why == nil {
		return nil
	}
	size, total := int64(0), int64(0)
	for _, st := range s.states {
		total += st.size
	}
	if s.lostLog.chunk != nil {
		size = s.lostLog.chunk.ColumnBytes()
		s.lose("the intent log (%v): what was written after txg %d and is in no other, also where it was flushed: at most %d bytes in %d changes",
			s.lostLog.why, s.txg, size, size/smallestChange)
	} else {
		size = defaultLogSize(total)
		s.lose("the intent log (%v): what was written after txg %d and is in no other, also where it was flushed: of a pool of this size commonly at most %d bytes",
			s.lostLog.why, s.txg, size)
	}
	p := &Pool{}
	p.config.Store(&s.config)
	p.devices.list = s.devices
	var err error
	for _, taken := range s.placesTaken() {
		if s.newLog, err = p.placeLog(&s.state, size, taken); err == nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("a new %w", err)
	}
	s.chunks = slices.DeleteFunc(s.chunks, func(c *raid.Chunk) bool { return shareDevice(c, s.newLog) })
	s.chunks = append(s.chunks, s.newLog) // it has the highest address
	return nil
}

// placesTaken returns what a new log must not lie on, in the order in which that is
// given up when there is no room: first chunks of which nothing is in use, then the
// place of the old one, which may not take anything any more.
func (s *salvager) placesTaken() (lists [][]*chunk) {
	var all, used, old []*chunk
	for _, c := range s.chunks {
		all = append(all, &chunk{Chunk: *c})
		if s.holds[c.ID] {
			used = append(used, &chunk{Chunk: *c})
		}
	}
	if s.lostLog.chunk != nil {
		old = append(old, &chunk{Chunk: *s.lostLog.chunk})
	}
	return [][]*chunk{slices.Concat(all, old), slices.Concat(used, old), all, used}
}

// formatLog writes an empty log where the new one is to be.
//
//	Crash before the new metadata is in its place: the pool as it was. Nothing of it
//	lies there but the log that cannot be read.
func (s *salvager) formatLog(ctx context.Context) error {
	if s.newLog == nil {
		return nil
	}
	array := raid.New(raid.Hooks{})
	for _, d := range s.devices {
		if d.dev != nil {
			array.Add(raid.DeviceID(d.id), d.dev)
		}
	}
	area := &logArea{p: &Pool{array: array}}
	area.chunk.Store(&chunk{Chunk: *s.newLog})
	return intent.Format(ctx, area)
}

// defaultLogSize returns how large the log of a pool is, of whose devices the bytes
// are given.
func defaultLogSize(total int64) int64 { return min(max(total/64, 3*extentUnit), 96<<20) }

// placeLog finds a place for an intent log, beside what is taken, and numbers for its
// chunk.
func (p *Pool) placeLog(st *state, size int64, taken []*chunk) (*raid.Chunk, error) {
	size = (size + extentUnit - 1) / extentUnit * extentUnit
	profile := p.profile(format.Log)
	got, columns := p.devices.choose(profile, p.profileWidth(format.Log), size, taken)
	if columns == nil || got < extentUnit {
		return nil, fmt.Errorf("intent log of %d bytes: %w", size, ErrNoSpace)
	}
	st.nextChunk++
	c := &raid.Chunk{
		ID: uint32(st.nextChunk), Base: st.nextAddr, Sectors: got / format.SectorSize,
		Class: format.Log, Profile: profile, Columns: columns,
	}
	st.nextAddr += format.Addr(c.Sectors)
	return c, nil
}
