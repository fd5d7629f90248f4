// Package mutant breaks rules of the pool, one at a time, so that it can be shown
// that its tests notice. A place that follows a rule which nothing but a crash, a
// damaged device or a race would enforce asks first whether it is broken:
//
//	if !mutant.Breaks(mutant.SyncBeforeCommit) {
//		…
//	}
//
// In an ordinary build Breaks is the constant false and the question costs
// nothing. With the build tag mutant, the environment variable LAMINA_MUTANT names
// the rule that is broken. blockpool's TestEachBrokenRuleIsNoticed builds the tests
// so, and runs them once for each rule.
package mutant

// A Rule is one that can be broken.
type Rule string

// The rules.
const (
	SyncBeforeCommit       Rule = "sync-before-commit"        // records are durable before what names them is committed
	SyncAllDevices         Rule = "sync-all-devices"          // every touched device is synced
	FreeAfterCommit        Rule = "free-after-commit"         // what a txg frees is used again only when it is durable
	FreeAfterReaders       Rule = "free-after-readers"        // … and when nobody reads it any more
	FreeSuperseded         Rule = "free-superseded"           // what was changed twice in a txg is freed
	RetainRecords          Rule = "retain-records"            // a copied leaf counts its records
	RetainNodes            Rule = "retain-nodes"              // a copied node counts its children
	ReleaseRecords         Rule = "release-records"           // a replaced record loses a reference
	ReleaseNodes           Rule = "release-nodes"             // a copied node loses a reference
	FlushSyncs             Rule = "flush-syncs"               // a flush syncs
	FlushSyncsLog          Rule = "flush-syncs-log"           // … the log, and not only records
	DataBeforePointer      Rule = "data-before-pointer"       // a record is written before the log points to it
	LogBeforeAcknowledge   Rule = "log-before-acknowledge"    // a change is in the log before its writer goes on
	EndOfGroup             Rule = "end-of-group"              // the log tells where a txg ends
	WholeRecords           Rule = "whole-records"             // replay checks payloads
	StopAtLostPointer      Rule = "stop-at-lost-pointer"      // replay ends where a pointer's bytes are not there
	ClaimBeforeReplay      Rule = "claim-before-replay"       // what pointers name is not given out in a recovery
	HolesBeforeRecords     Rule = "holes-before-records"      // a txg cuts its holes before it puts its records
	WritesBeforeTasks      Rule = "writes-before-tasks"       // a snapshot has the writes of its txg
	CommitBeforePublish    Rule = "commit-before-publish"     // nobody is told of a txg that is not committed
	AllReplicas            Rule = "all-replicas"              // each replica takes each commit
	LabelsAfterReplicaLost Rule = "labels-after-replica-lost" // labels tell when a replica falls behind
	KeepDeadLists          Rule = "keep-dead-lists"           // what is left of a destroyed tree is committed
	AllCopies              Rule = "all-copies"                // each copy of a mirror is written
	Verify                 Rule = "verify"                    // what is read is compared with its checksum
	Mend                   Rule = "mend"                      // bad copies are rewritten
	ZeroEdges              Rule = "zero-edges"                // a hole ends where it was to end
	ShrinkZeroes           Rule = "shrink-zeroes"             // what a smaller size cut off does not come back
	CountUsed              Rule = "count-used"                // used bytes fall when records are freed
	OpenBeforeSyncing      Rule = "open-before-syncing"       // of two changes the later one is read
	WholeBatches           Rule = "whole-batches"             // a batch is one record of the log
	ItemsBeforeTasks       Rule = "items-before-tasks"        // a snapshot has the items of its txg
	FreeSurplus            Rule = "free-surplus"              // sectors that a packed record does not need are freed
	CountObjects           Rule = "count-objects"             // a dataset counts its objects
	KeepCodec              Rule = "keep-codec"                // a record says how it was packed
)

// Rules are all of them; the first dozen is what each run tries.
var Rules = []Rule{
	SyncBeforeCommit, FreeAfterCommit, FreeAfterReaders, RetainRecords, ReleaseRecords, FlushSyncs,
	DataBeforePointer, FlushSyncsLog, AllReplicas, FreeSuperseded, HolesBeforeRecords, LabelsAfterReplicaLost,
	CommitBeforePublish, WholeRecords, WritesBeforeTasks, StopAtLostPointer, ClaimBeforeReplay, EndOfGroup,
	SyncAllDevices, RetainNodes, ReleaseNodes, LogBeforeAcknowledge, KeepDeadLists, AllCopies, Verify, Mend,
	ZeroEdges, ShrinkZeroes, CountUsed, OpenBeforeSyncing,
	WholeBatches, ItemsBeforeTasks, FreeSurplus, CountObjects, KeepCodec,
}
