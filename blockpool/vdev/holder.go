package vdev

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// holder describes who is likely to have a file locked: the process that
// /proc/locks names, or a guess.
func holder(info fs.FileInfo) string {
	const guess = "a pool server that is still running, or has just been started"
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return guess
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return guess
	}
	defer locks.Close()
	pid := flockHolder(locks, unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	if pid <= 0 {
		return guess
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d has it locked", pid)
	}
	if pid == os.Getpid() {
		return "this process has it open already"
	}
	return fmt.Sprintf("process %d (%s) has it locked", pid, strings.TrimSpace(string(name)))
}

// flockHolder looks in the text of /proc/locks (proc(5)) for the process that
// has a file locked, 0 if there is none. Processes of other namespaces are
// shown as 0 or not at all.
func flockHolder(locks io.Reader, major, minor uint32, ino uint64) int {
	file := fmt.Sprintf("%02x:%02x:%d", major, minor, ino)
	for s := bufio.NewScanner(locks); s.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF
		f := strings.Fields(s.Text())
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(f[4], &pid); err == nil {
			return pid
		}
	}
	return 0
}
