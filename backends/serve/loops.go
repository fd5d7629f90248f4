package serve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// A Loop is a loop device whose data lies in a volume.
type Loop struct {
	Device string   `json:"device"`           // /dev/loop3
	File   string   `json:"file"`             // of the volume
	Mounts []string `json:"mounts,omitempty"` // where the device is mounted
}

func (l Loop) String() string {
	if len(l.Mounts) == 0 {
		return fmt.Sprintf("%s (of %s)", l.Device, l.File)
	}
	return fmt.Sprintf("%s (of %s, mounted on %s)", l.Device, l.File, strings.Join(l.Mounts, " and "))
}

// Release returns the command that takes the device away.
func (l Loop) Release() string {
	var first []string
	for _, on := range l.Mounts {
		first = append(first, "umount "+on)
	}
	return strings.Join(append(first, "losetup -d "+l.Device), " && ")
}

// loopsBelow returns the loop devices over files below a mount point. It reads
// what the kernel tells of the devices and touches no file: a server that looks
// at its own mount would wait for itself.
func loopsBelow(target string) []Loop {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // fails for a bad pattern only
	var loops []Loop
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // it was detached meanwhile
		}
		file := strings.TrimSuffix(string(text), "\n")
		if !strings.HasPrefix(file, strings.TrimSuffix(target, "/")+"/") {
			continue
		}
		dir := filepath.Dir(filepath.Dir(f)) // /sys/block/loop3
		loops = append(loops, Loop{
			Device: "/dev/" + filepath.Base(dir),
			File:   file,
			Mounts: mountsOf(dir),
		})
	}
	return loops
}

// mountsOf returns where a block device is mounted, in this mount namespace.
func mountsOf(sysDir string) []string {
	dev, err := os.ReadFile(filepath.Join(sysDir, "dev"))
	if err != nil {
		return nil
	}
	number := strings.TrimSpace(string(dev))
	// Without the table the device is named all the same.
	found, _ := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return fmt.Sprintf("%d:%d", m.Major, m.Minor) != number, false
	})
	var on []string
	for _, m := range found {
		on = append(on, m.Mountpoint)
	}
	return on
}
