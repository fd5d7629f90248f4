package blockpool

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// A Severity says how bad a finding of a check is.
type Severity string

// The severities, the mildest first.
const (
	// Note is worth knowing, and opening the pool sets it right.
	Note Severity = "note"
	// Leak is space or accounting that is lost and harms nothing else.
	Leak Severity = "leak"
	// Degraded is damage that redundancy makes up for.
	Degraded Severity = "degraded"
	// Damage is lost or will be lost when the pool goes on being used.
	Damage Severity = "damage"
)

// A FindingKind says what is wrong. Its value is stable: programs may look for
// it.
type FindingKind string

// The kinds of findings.
const (
	FindLabel           FindingKind = "label"             // a copy of a label is not whole
	FindLabelDiffers    FindingKind = "label-differs"     // a label is not what the metadata says of the device
	FindDeviceMissing   FindingKind = "device-missing"    // a device is not there
	FindDeviceSize      FindingKind = "device-size"       // a device is smaller than it was
	FindDeviceEntry     FindingKind = "device-entry"      // what the metadata has of a device means nothing
	FindReplica         FindingKind = "replica"           // a replica of the metadata is damaged or missing
	FindReplicaOld      FindingKind = "replica-old"       // a replica lacks the last transaction groups
	FindReplicaDiffers  FindingKind = "replica-differs"   // replicas of one transaction group are not the same
	FindMetadataOld     FindingKind = "metadata-old"      // a device knows of a later transaction group
	FindValue           FindingKind = "value"             // an entry of the metadata does not fit its checksum
	FindConfig          FindingKind = "config"            // the configuration means nothing
	FindState           FindingKind = "state"             // the numbers that are given out next mean nothing
	FindCounter         FindingKind = "counter"           // such a number is in use already
	FindChunk           FindingKind = "chunk"             // a chunk means nothing
	FindChunkOverlap    FindingKind = "chunk-overlap"     // chunks share addresses
	FindDeviceOverlap   FindingKind = "device-overlap"    // chunks share bytes of a device
	FindChunkDevice     FindingKind = "chunk-device"      // a chunk lies where no device is
	FindLogMissing      FindingKind = "log-missing"       // there is no intent log, or there are several
	FindLogPending      FindingKind = "log-pending"       // the intent log has changes that are in no transaction group
	FindVolumeEntry     FindingKind = "volume-entry"      // an entry of the catalogue means nothing
	FindVolumeName      FindingKind = "volume-name"       // a name that is none, or is taken
	FindVolumeOrigin    FindingKind = "volume-origin"     // an origin that cannot be
	FindVolumeState     FindingKind = "volume-state"      // times or sizes that cannot be
	FindNode            FindingKind = "node"              // a node is missing or means nothing
	FindTree            FindingKind = "tree"              // nodes do not fit each other
	FindRecord          FindingKind = "record"            // a record's entry means nothing
	FindRecordBeyond    FindingKind = "record-beyond"     // a record lies beyond the end of its volume
	FindRecordPlace     FindingKind = "record-place"      // a record's address lies in no chunk of data
	FindRecordOverlap   FindingKind = "record-overlap"    // two records claim the same sectors
	FindRecordFuture    FindingKind = "record-future"     // a record of a transaction group that was not
	FindDead            FindingKind = "dead-list"         // what is left of a destroyed tree means nothing
	FindSegment         FindingKind = "segment"           // a segment of a space map is missing or means nothing
	FindSegmentStray    FindingKind = "segment-stray"     // a segment that counts nothing of the pool
	FindNodeFree        FindingKind = "node-free"         // a node is in use and counted as free
	FindNodeCountLow    FindingKind = "node-count-low"    // a node is counted less often than it is referred to
	FindNodeCountHigh   FindingKind = "node-count-high"   // more often
	FindNodeLeaked      FindingKind = "node-leaked"       // a node is counted, and nothing refers to it
	FindNodeStray       FindingKind = "node-stray"        // a node is stored, not counted, and nothing refers to it
	FindSectorsFree     FindingKind = "sectors-free"      // sectors hold a record and are counted as free
	FindSectorsLow      FindingKind = "sectors-count-low" // a record is counted less often than it is referred to
	FindSectorsHigh     FindingKind = "sectors-count-high"
	FindSectorsLeaked   FindingKind = "sectors-leaked" // sectors are counted, and nothing refers to them
	FindUsed            FindingKind = "used"           // the bytes that a volume is charged with are wrong
	FindReferenced      FindingKind = "referenced"     // the bytes that a volume refers to are counted wrong
	FindObjects         FindingKind = "objects"        // the objects of a dataset are counted wrong
	FindDataCopy        FindingKind = "data-copy"      // a copy of a record is wrong, another is right
	FindDataLost        FindingKind = "data-lost"      // no copy of a record fits its checksum
	FindDataPacked      FindingKind = "data-packed"    // a packed record fits its checksum and cannot be unpacked
	FindMetadataMissing FindingKind = "metadata-lost"  // no replica of the metadata can be used
)

// kindInfo is what findings of a kind have in common.
type kindInfo struct {
	severity Severity
	repair   string // what would be done about it
}

const (
	byRepair   = "repair counts anew what the trees say"
	byLeaks    = "check with repair frees it"
	bySalvage  = "repair keeps everything else, and what it can of this"
	byScrub    = "a scrub writes it anew from the good copy"
	byOpening  = "opening the pool sets it right"
	byLabels   = "written anew when a device or replica comes or goes"
	byRestore  = "restore an earlier copy of the data; repair leaves a hole"
	byAccounts = "check with repair corrects it"
)

var kinds = map[FindingKind]kindInfo{
	FindLabel:           {Degraded, byLabels},
	FindLabelDiffers:    {Damage, "find the right device; replace this one"},
	FindDeviceMissing:   {Degraded, "attach the device, or replace it"},
	FindDeviceSize:      {Damage, "give the device its size back, or replace it"},
	FindDeviceEntry:     {Damage, "repair takes it from the device's label"},
	FindReplica:         {Degraded, "opening the pool writes it anew from another"},
	FindReplicaOld:      {Note, "opening the pool writes it anew from another"},
	FindReplicaDiffers:  {Damage, "repair takes the one whose contents check clean"},
	FindMetadataOld:     {Damage, "find the newer replicas; repair with force goes on with what is there"},
	FindMetadataMissing: {Damage, "repair takes the older state of a replica, or what it finds in its pages; restore a dump"},
	FindValue:           {Damage, bySalvage},
	FindConfig:          {Damage, "repair makes one from labels and defaults"},
	FindState:           {Damage, byRepair},
	FindCounter:         {Damage, byRepair},
	FindChunk:           {Damage, bySalvage},
	FindChunkOverlap:    {Damage, bySalvage},
	FindDeviceOverlap:   {Damage, bySalvage},
	FindChunkDevice:     {Damage, bySalvage},
	FindLogMissing:      {Damage, "find its device; else repair makes a new one (--new-log), and what it held is lost"},
	FindLogPending:      {Note, byOpening},
	FindVolumeEntry:     {Damage, "repair brings its tree back under lost-found"},
	FindVolumeName:      {Damage, "repair gives it a name under lost-found"},
	FindVolumeOrigin:    {Damage, "repair makes it a volume without origin"},
	FindVolumeState:     {Damage, byRepair},
	FindNode:            {Damage, "repair keeps what is not below it, and leaves a hole"},
	FindTree:            {Damage, "repair keeps what fits, and leaves a hole"},
	FindRecord:          {Damage, "repair leaves a hole"},
	FindRecordBeyond:    {Damage, "repair makes the volume long enough"},
	FindRecordPlace:     {Damage, "repair leaves a hole"},
	FindRecordOverlap:   {Damage, "repair keeps the record that fits its checksum"},
	FindRecordFuture:    {Damage, "repair keeps it under a later transaction group"},
	FindDead:            {Damage, "repair forgets it and frees what nothing else refers to"},
	FindSegment:         {Damage, byRepair},
	FindSegmentStray:    {Leak, byLeaks},
	FindNodeFree:        {Damage, byRepair},
	FindNodeCountLow:    {Damage, byRepair},
	FindNodeCountHigh:   {Leak, byLeaks},
	FindNodeLeaked:      {Leak, byLeaks},
	FindNodeStray:       {Leak, byLeaks},
	FindSectorsFree:     {Damage, byRepair},
	FindSectorsLow:      {Damage, byRepair},
	FindSectorsHigh:     {Leak, byLeaks},
	FindSectorsLeaked:   {Leak, byLeaks},
	FindUsed:            {Leak, byAccounts},
	FindReferenced:      {Leak, byAccounts},
	FindObjects:         {Leak, byAccounts},
	FindDataCopy:        {Degraded, byScrub},
	FindDataLost:        {Damage, byRestore},
	FindDataPacked:      {Damage, byRestore},
}

// A Finding is one thing that is wrong, and where. Fields that do not apply are
// zero.
type Finding struct {
	Severity Severity    `json:"severity"`
	Kind     FindingKind `json:"kind"`
	Volume   string      `json:"volume,omitempty"` // one of those that it concerns
	Node     uint64      `json:"node,omitempty"`
	Record   *uint64     `json:"record,omitempty"`  // number within the volume
	Address  uint64      `json:"address,omitempty"` // first sector of the pool that it concerns
	Sectors  uint64      `json:"sectors,omitempty"` // how many
	Chunk    uint32      `json:"chunk,omitempty"`
	Device   string      `json:"device,omitempty"`
	Offset   *int64      `json:"offset,omitempty"` // in bytes, on the device
	Replica  string      `json:"replica,omitempty"`
	Text     string      `json:"text"`             // what is wrong
	Repair   string      `json:"repair,omitempty"` // what would be done about it
}

// String returns the finding on one line.
func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s:", f.Severity, f.Kind)
	add := func(format string, v any) { s += " " + fmt.Sprintf(format, v) }
	if f.Volume != "" {
		add("volume %s", f.Volume)
	}
	if f.Record != nil {
		add("record %d", *f.Record)
	}
	if f.Node != 0 {
		add("node %d", f.Node)
	}
	if f.Sectors != 0 {
		add("sectors %s", fmt.Sprintf("%d+%d", f.Address, f.Sectors))
	}
	if f.Chunk != 0 {
		add("chunk %d", f.Chunk)
	}
	if f.Device != "" {
		add("device %s", f.Device)
	}
	if f.Offset != nil {
		add("offset %d", *f.Offset)
	}
	if f.Replica != "" {
		add("replica %s", f.Replica)
	}
	return s + ": " + f.Text
}

// A Class sums a report up. Commands exit with [Class.ExitCode].
type Class string

// The classes.
const (
	ClassClean  Class = "clean"  // nothing is wrong
	ClassLeaks  Class = "leaks"  // nothing but leaks, which a check can free
	ClassDamage Class = "damage" // something is damaged, whether or not redundancy makes up for it
)

// ExitCode is what a command that checks exits with, in fsck's manner.
func (c Class) ExitCode() int {
	switch c {
	case ClassClean:
		return 0
	case ClassLeaks:
		return 1
	default:
		return 4
	}
}

// maxFindings is how many findings a report lists; all are counted.
const maxFindings = 10000

// A Report is what a check found.
type Report struct {
	Pool  string `json:"pool"`
	GUID  GUID   `json:"guid"`
	Txg   uint64 `json:"txg"` // that was looked at
	Class Class  `json:"class"`

	Findings []Finding           `json:"findings"` // the first ten thousand, in the order in which they were met
	Counts   map[FindingKind]int `json:"counts"`   // of all of them

	Volumes    int           `json:"volumes"`
	Snapshots  int           `json:"snapshots"`
	Devices    int           `json:"devices"`
	Chunks     int           `json:"chunks"`
	Nodes      uint64        `json:"nodes"`
	Records    uint64        `json:"records"`     // a shared one once
	Bytes      int64         `json:"bytes"`       // that they take, redundancy aside
	BytesRead  int64         `json:"bytes_read"`  // of records that were verified
	DeadTrees  int           `json:"dead_trees"`  // destroyed and not yet freed
	FreedNodes uint64        `json:"freed_nodes"` // by the repair of leaks
	FreedBytes int64         `json:"freed_bytes"` // the same of sectors, redundancy included
	LogChanges int           `json:"log_changes"` // that the intent log would bring back
	Duration   time.Duration `json:"duration_ns"`
}

// add counts a finding, and lists it if there is room.
func (r *Report) add(f Finding) {
	info := kinds[f.Kind]
	if f.Severity == "" {
		f.Severity = info.severity
	}
	if f.Repair == "" {
		f.Repair = info.repair
	}
	if r.Counts == nil {
		r.Counts = map[FindingKind]int{}
	}
	r.Counts[f.Kind]++
	switch {
	case f.Severity == Degraded || f.Severity == Damage:
		r.Class = ClassDamage
	case f.Severity == Leak && r.Class == ClassClean:
		r.Class = ClassLeaks
	}
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, f)
	}
}

// Damaged reports whether something is wrong that redundancy does not make up
// for.
func (r *Report) Damaged() bool {
	for k := range r.Counts {
		if kinds[k].severity == Damage {
			return true
		}
	}
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Damage })
}

// WriteText writes the report for people to read.
func (r *Report) WriteText(w io.Writer) error {
	b := fmt.Appendf(nil, "pool %s (%s), txg %d: %s\n", r.Pool, r.GUID, r.Txg, r.Class)
	b = fmt.Appendf(b, "%d volumes, %d snapshots, %d devices, %d chunks, %d nodes, %d records of %d bytes\n",
		r.Volumes, r.Snapshots, r.Devices, r.Chunks, r.Nodes, r.Records, r.Bytes)
	for _, f := range r.Findings {
		b = fmt.Appendf(b, "%v\n", f)
		if f.Repair != "" {
			b = fmt.Appendf(b, "    %s\n", f.Repair)
		}
	}
	total := 0
	for _, k := range slices.SortedFunc(maps.Keys(r.Counts), func(a, b FindingKind) int { return cmp.Compare(a, b) }) {
		b = fmt.Appendf(b, "%8d × %s\n", r.Counts[k], k)
		total += r.Counts[k]
	}
	if total > len(r.Findings) {
		b = fmt.Appendf(b, "%d findings are not listed\n", total-len(r.Findings))
	}
	_, err := w.Write(b)
	return err
}
