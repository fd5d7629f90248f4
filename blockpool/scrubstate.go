package blockpool

import (
	"encoding/binary"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
)

// keyScrub is the key of the scrub's state in the bucket of properties.
const keyScrub = "scrub"

const scrubVersion = 1

// Tags of the fields of a scrub's state on disk.
const (
	scrubState = iota + 1
	scrubBegan
	scrubEnded
	scrubDone
	scrubTotal
	scrubRate
	scrubTxg
	scrubRecords
	scrubMended
	scrubUnrecoverable
	scrubLostRecords
	scrubLostNodes
	scrubReplicas
	scrubError
	scrubCursor
	scrubAgain // one for each leaf to be visited again
)

// numbers returns the fields that are numbers, by tag.
func (s *ScrubStatus) numbers() map[byte]*uint64 {
	return map[byte]*uint64{
		scrubTxg: &s.Txg, scrubRecords: &s.Records, scrubLostRecords: &s.LostRecords,
		scrubLostNodes: &s.LostNodes, scrubReplicas: &s.RepairedReplica,
	}
}

// sizes returns the fields that are sizes, by tag.
func (s *ScrubStatus) sizes() map[byte]*int64 {
	return map[byte]*int64{
		scrubDone: &s.Done, scrubTotal: &s.Total, scrubRate: &s.Rate,
		scrubMended: &s.Mended, scrubUnrecoverable: &s.Unrecoverable,
	}
}

// times returns the fields that are times, by tag.
func (s *ScrubStatus) times() map[byte]*time.Time {
	return map[byte]*time.Time{scrubBegan: &s.Began, scrubEnded: &s.Ended}
}

// pack returns status and position.
func (s *ScrubStatus) pack(cursor btree.NodeID, again []btree.NodeID) []byte {
	f := format.NewFields(scrubVersion)
	f.String(scrubState, s.State)
	f.String(scrubError, s.LastError)
	numbers, sizes, times := s.numbers(), s.sizes(), s.times()
	for tag := byte(scrubState); tag < scrubError; tag++ {
		switch {
		case numbers[tag] != nil:
			f.Uint(tag, *numbers[tag])
		case sizes[tag] != nil:
			f.Uint(tag, uint64(*sizes[tag]))
		case times[tag] != nil && !times[tag].IsZero():
			f.Uint(tag, uint64(times[tag].UnixNano()))
		}
	}
	f.Uint(scrubCursor, uint64(cursor))
	for _, id := range again {
		f.Bytes(scrubAgain, binary.AppendUvarint(nil, uint64(id)))
	}
	return f
}

// unpack is the inverse of pack.
func (s *ScrubStatus) unpack(b []byte) (cursor btree.NodeID, again []btree.NodeID, err error) {
	*s = ScrubStatus{}
	numbers, sizes, times := s.numbers(), s.sizes(), s.times()
	err = format.ParseFields(b, scrubVersion, func(f format.Field) error {
		switch {
		case f.Tag == scrubState:
			s.State = f.String()
			return nil
		case f.Tag == scrubError:
			s.LastError = f.String()
			return nil
		case f.Tag == scrubAgain:
			var id uint64
			err := f.Uint(&id)
			again = append(again, btree.NodeID(id))
			return err
		case f.Tag == scrubCursor:
			return f.Uint((*uint64)(&cursor))
		case numbers[f.Tag] != nil:
			return f.Uint(numbers[f.Tag])
		case sizes[f.Tag] != nil:
			return f.Int(sizes[f.Tag])
		case times[f.Tag] != nil:
			var n int64
			err := f.Int(&n)
			*times[f.Tag] = time.Unix(0, n)
			return err
		}
		return f.Unknown()
	})
	return cursor, again, err
}
