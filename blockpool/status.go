package blockpool

import (
	"errors"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// The states of a pool.
const (
	StateOnline     = "online"      // everything is there
	StateDegraded   = "degraded"    // something is missing, faulted or being resilvered; what is stored can be read
	StateReadOnly   = "read-only"   // it was opened so
	StateNeedsCheck = "needs-check" // metadata could not be committed: read-only until it is opened anew
	StateClosed     = "closed"
)

// Status is all that there is to know of a pool, as zpool status, lvs and docker
// info show it. Sizes are in bytes.
type Status struct {
	Name    string `json:"name"`
	GUID    GUID   `json:"guid"`
	State   string `json:"state"`
	Problem string `json:"problem,omitempty"` // why it is not online
	Action  string `json:"action,omitempty"`  // what to do about it

	Txg       uint64    `json:"txg"` // the last that is durable
	Committed time.Time `json:"committed"`

	Devices  []DeviceInfo    `json:"devices"`
	Replicas []ReplicaStatus `json:"replicas"`

	DataProfile     string `json:"data_profile"`
	MetadataProfile string `json:"metadata_profile"`
	RecordSize      int64  `json:"record_size"`
	ChunkSize       int64  `json:"chunk_size"`

	Data     SpaceStatus `json:"data"`     // raw, parity counted where the profile has it, copies not
	Usable   SpaceStatus `json:"usable"`   // the same without parity, for records of the usual size
	Metadata SpaceStatus `json:"metadata"` // of the replica with the least room
	Log      LogStatus   `json:"log"`
	Reserved int64       `json:"reserved"` // of what is free, kept for volumes that reserved it; raw
	Freeing  int64       `json:"freeing"`  // freed, and not yet to be used again
	Raw      int64       `json:"raw"`      // of all devices

	LowWater     int           `json:"low_water"` // percent
	Low          bool          `json:"low"`       // less is free than that
	MinFree      int           `json:"min_free"`  // percent
	WhenFull     string        `json:"when_full"` // error or queue
	QueueTimeout time.Duration `json:"queue_timeout"`
	Discard      bool          `json:"discard"`
	Hook         string        `json:"hook,omitempty"`

	Volumes   int  `json:"volumes"`
	Snapshots int  `json:"snapshots"`
	Deleting  bool `json:"deleting"` // destroyed volumes are still being taken apart

	Scrub ScrubStatus `json:"scrub"`
	Move  MoveStatus  `json:"move"` // a removal, replacement, resilver or conversion

	Convert ConvertStatus `json:"convert"`
}

// SpaceStatus tells of space, in bytes.
type SpaceStatus struct {
	Size int64 `json:"size"`
	Used int64 `json:"used"`
	Free int64 `json:"free"`
}

// LogStatus tells of the intent log, in bytes.
type LogStatus struct {
	Size    int64    `json:"size"`
	Profile string   `json:"profile"`
	Devices []string `json:"devices"`
}

// ReplicaStatus tells of a replica of the metadata. Sizes are in bytes.
type ReplicaStatus struct {
	Path    string `json:"path"`
	State   string `json:"state"` // online, damaged or failed
	Size    int64  `json:"size"`  // of the file
	Used    int64  `json:"used"`
	Problem string `json:"problem,omitempty"`
}

// Status returns the state of the pool. Parts that change meanwhile may not fit
// each other to the byte.
func (p *Pool) Status() Status {
	c := p.Config()
	st := Status{
		Name: c.Name, GUID: p.guid, Txg: p.meta.Txg(), Committed: p.meta.Time(),
		Devices: p.Devices(), DataProfile: c.DataProfile.String(), MetadataProfile: c.MetadataProfile.String(),
		RecordSize: c.RecordSize, ChunkSize: c.ChunkSize,
		LowWater: c.LowWater, MinFree: c.MinFree, WhenFull: c.WhenFull.String(), QueueTimeout: c.QueueTimeout,
		Discard: c.Discard, Hook: c.Hook,
		Deleting: p.dead.pending(), Scrub: p.ScrubStatus(), Move: p.MoveStatus(), Convert: p.ConvertStatus(),
	}
	st.Replicas, st.Metadata = p.replicaStatus()
	st.Data = SpaceStatus{Size: p.space.total(format.Data) * format.SectorSize, Free: p.space.available(format.Data) * format.SectorSize}
	st.Data.Used = st.Data.Size - st.Data.Free
	st.Usable = p.usableSpace()
	st.Low = st.Data.Free*100 < st.Data.Size*int64(c.LowWater)
	st.Freeing = p.epochs.pending() * format.SectorSize
	st.Reserved = p.space.reservedRaw() * format.SectorSize
	st.Log = p.logStatus()
	for _, d := range st.Devices {
		st.Raw += d.Size
	}
	for _, v := range p.catalogue.all() {
		if v.entry.Load().kind == KindSnapshot {
			st.Snapshots++
		} else {
			st.Volumes++
		}
	}
	st.State, st.Problem, st.Action = p.health(&st)
	return st
}

// replicaStatus returns the replicas, and the room that the metadata has.
func (p *Pool) replicaStatus() (list []ReplicaStatus, room SpaceStatus) {
	sizes := map[string]ReplicaStatus{}
	if stats, err := p.meta.Stats(); err == nil {
		for _, r := range stats.Replicas {
			sizes[r.Path] = ReplicaStatus{Size: r.Size, Used: r.Used}
		}
		room = SpaceStatus{Size: p.Config().MetadataSize, Used: stats.Largest.Used + stats.Largest.Pending}
		room.Free = max(room.Size-room.Used, 0)
	}
	for _, r := range p.meta.Replicas() {
		s := ReplicaStatus{Path: r.Path, State: "online", Size: sizes[r.Path].Size, Used: sizes[r.Path].Used}
		switch {
		case r.Err != nil:
			s.State, s.Problem = "failed", r.Err.Error()
		case r.Damaged:
			s.State, s.Problem = "damaged", "a value in it does not fit its checksum"
		}
		list = append(list, s)
	}
	return list, room
}

func (p *Pool) logStatus() LogStatus {
	c := p.logArea.chunk.Load()
	st := LogStatus{Size: c.ColumnBytes(), Profile: c.Profile.String()}
	for _, col := range c.Columns {
		if d := p.devices.get(uint32(col.Device)); d != nil {
			st.Devices = append(st.Devices, d.state.Load().path)
		}
	}
	return st
}

// health sums up, with what is wrong first and what can be done about it.
func (p *Pool) health(st *Status) (state, problem, action string) {
	err := p.readOnly()
	switch {
	case errors.Is(err, ErrClosed):
		return StateClosed, "", ""
	case errors.Is(err, ErrNeedsCheck):
		return StateNeedsCheck, err.Error(), "close the pool, check it, and open it again"
	case err != nil:
		return StateReadOnly, "it was opened for reading only", "open it for writing"
	}
	for _, d := range st.Devices {
		switch d.State {
		case "missing":
			return StateDegraded, "device " + d.Path + " is missing", "attach or replace it"
		case "faulted":
			return StateDegraded, "device " + d.Path + " has failed", "clear it when the cause is gone, or replace it"
		case "resilvering":
			return StateDegraded, "device " + d.Path + " lacks what was written while it was away", "wait for the resilver"
		}
	}
	for _, r := range st.Replicas {
		if r.State != "online" {
			return StateDegraded, "metadata replica " + r.Path + " is " + r.State, "write it anew (pool replica recopy), or add another (pool replica add) and remove it (pool replica remove)"
		}
	}
	if st.Scrub.LostRecords+st.Scrub.LostNodes > 0 {
		return StateDegraded, "some records are damaged beyond repair", "see the events for what they belong to; restore or destroy that"
	}
	return StateOnline, "", ""
}

// reservedRaw returns the raw sectors that are kept for volumes that have reserved
// and not used them.
func (s *space) reservedRaw() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserved
}
