package poolserver

// operations are all that a server can be asked for.
var operations = []operation{
	PoolStatus, PoolStop, PoolEvents, PoolSet, PoolSync,
	VolumeList, VolumeCreate, VolumeSnapshot, VolumeClone, VolumePromote, VolumeRollback,
	VolumeRename, VolumeResize, VolumeSet, VolumeDestroy, VolumeRead, VolumeWrite, VolumeTrim,
	ExportList, ExportMount, ExportListen, ExportEnd,
}
