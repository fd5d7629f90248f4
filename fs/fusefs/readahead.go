package fusefs

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// The kernel reads ahead as far as the filesystem's device is set to, and sets
// FUSE to 128 KB whatever the disks have. Whoever reads a file in one go then
// waits for many small requests, also where the administrator has set the disks
// to more.

// maxReadAhead bounds what the mount reads ahead, in KB: a page fault at a random
// place of a mapped file costs as much too.
const maxReadAhead = 512

// layerReadAhead returns how many KB the disks of the layers are set to read
// ahead, the largest number of all. It is 0 for layers on no disk.
func layerReadAhead(o *mountopt.Options) int {
	most := 0
	seen := map[uint64]bool{}
	for _, list := range [][]string{o.Lower, o.DataOnly, {o.Upper}} {
		for _, path := range list {
			var st unix.Stat_t
			if path == "" || unix.Stat(path, &st) != nil || seen[st.Dev] {
				continue
			}
			seen[st.Dev] = true
			most = max(most, diskReadAhead(st.Dev))
		}
	}
	return most
}

func diskReadAhead(dev uint64) int {
	dir := "/sys/dev/block/" + fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	for _, name := range []string{dir + "/queue/read_ahead_kb", dir + "/../queue/read_ahead_kb"} { // a disk, a part of one
		if text, err := os.ReadFile(name); err == nil {
			kb, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			return kb
		}
	}
	return 0
}

// readAhead makes the kernel read ahead in the mount as it does in the layers.
// Only root outside of containers may say so; elsewhere it stays as it is.
func (d *device) readAhead(kb int) {
	if kb = min(kb, maxReadAhead); kb <= 128 { // FUSE's own, VM_READAHEAD_PAGES
		return
	}
	f, err := os.OpenFile("/sys/class/bdi/"+d.devName()+"/read_ahead_kb", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	// Slower reading is no reason to fail.
	_, _ = f.WriteString(strconv.Itoa(kb))
}
