package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// becomeSubreaper makes this process the parent of every descendant whose own
// parent ends. A server that daemonizes is then still a child, so it can be
// found, waited for and, if need be, ended by its process id alone.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of servers: %w", err)
	}
	return nil
}

// children lists the process ids of our children, also of those that have ended
// and were not waited for. /proc/PID/task/TID/children would be one file per
// thread and is not in every kernel.
func children() ([]int, error) {
	self := os.Getpid()
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // ended since the listing
		}
		if parentOf(string(data)) == self {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// parentOf reads the fourth field of /proc/PID/stat; 0 if there is none. The
// second, the command in parentheses, may itself hold spaces and parentheses.
func parentOf(stat string) int {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return pid
}

// signalChildren sends sig to every child. A child keeps its process id until it
// is waited for, so no other process can be hit.
func signalChildren(sig unix.Signal) error {
	pids, err := children()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	return nil
}

// awaitChildren waits until every child has ended and says whether that was
// before the deadline. A child whose own children it leaves is followed by them.
func awaitChildren(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return true
		case err == nil && pid > 0, errors.Is(err, unix.EINTR):
			continue
		case time.Now().After(deadline):
			return false
		}
	}
}

// Servers whose filesystem is unmounted end by themselves; these are the times
// that they get for it, and then after SIGTERM and after SIGKILL.
const (
	patience     = 10 * time.Second
	termPatience = 3 * time.Second
	killPatience = 10 * time.Second
)

// endChildren ends what is left running. Call it only when no command of ours is
// being waited for elsewhere: it waits for all.
func endChildren() error {
	if awaitChildren(0) {
		return nil
	}
	for _, step := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, termPatience}, {unix.SIGKILL, killPatience}} {
		if err := signalChildren(step.sig); err != nil {
			return err
		}
		if awaitChildren(step.wait) {
			return nil
		}
	}
	pids, err := children()
	return errors.Join(err, fmt.Errorf("processes %v do not end after SIGKILL", pids))
}

// residentMB is the resident memory of our children, in units of 10^6 bytes.
func residentMB() (float64, error) {
	pids, err := children()
	if err != nil {
		return 0, err
	}
	var kib float64
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("memory of server: %w", err)
		}
		kib += statusKiB(string(status), "VmRSS")
	}
	return kib * 1024 / 1e6, nil
}

// statusKiB reads one line of /proc/PID/status; a process that has ended has none: 0.
func statusKiB(status, field string) float64 {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}
