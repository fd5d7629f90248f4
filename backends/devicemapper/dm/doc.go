// Package dm speaks to the kernel's device-mapper: mapped devices of one target
// each, made, looked at and removed by the ioctls of /dev/mapper/control
// (include/uapi/linux/dm-ioctl.h). It needs root and no library.
//
//	Create ── DEV_CREATE, TABLE_LOAD, DEV_SUSPEND(resume) ──> /dev/dm-N
//	Message ─ TARGET_MSG ──> thin-pool: create_thin, create_snap, delete
//	Status ── TABLE_STATUS
//	Remove ── DEV_REMOVE, deferred: when the last one has closed it
//
// # Model
//
// A device is called by its name; its node is /dev/dm-N of devtmpfs, so nothing
// here waits for udev. Where udev runs it makes the links in /dev/mapper, and is
// asked to leave the content of the devices alone: what it opens cannot be removed.
//
// Deferred removal is how devices end here: who uses one holds it open, and the
// kernel takes it away after the last, however that process ended.
package dm
