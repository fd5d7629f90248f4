package poolserver

// operations are all that a server can be asked for.
var operations = []operation{
	PoolStatus, PoolStop, PoolEvents, PoolSet, PoolSync,
	PoolScrub, PoolScrubControl, PoolAdd, PoolRemove, PoolReplace, PoolGrow, PoolOnline, PoolConvert,
	PoolReplicaAdd, PoolReplicaRemove, PoolReplicaRecopy,
	PoolCheck, PoolDump, PoolDumpThin, PoolRestoreThin, PoolCompact, PoolTrim, PoolRmap,
	VolumeList, VolumeCreate, VolumeSnapshot, VolumeClone, VolumePromote, VolumeRollback,
	VolumeRename, VolumeResize, VolumeSet, VolumeDestroy, VolumeRead, VolumeWrite, VolumeTrim,
	VolumeDiscard, VolumeUsage, VolumeDelta, VolumeSend, VolumeReceive, VolumeReceiveToken, VolumeReceiveAbort,
	DatasetGet, DatasetCreate, DatasetSnapshot, DatasetClone, DatasetRollback, DatasetDestroy, DatasetRename,
	DatasetSet, DatasetInherit, DatasetMount, DatasetUnmount, DatasetMounts, DatasetDiff,
	DatasetApply, DatasetArchive, DatasetChanges, DatasetDelta, DatasetLook,
	SubvolumeCreate, SubvolumeSnapshot, SubvolumeDelete, SubvolumeList,
	ExportList, ExportMount, ExportListen, ExportEnd,
}
