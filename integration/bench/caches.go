package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// serveCacheDrops answers each byte read from requests by emptying the page,
// dentry and inode caches of the machine, and a line: empty, or why it failed.
// It runs in the launcher because a worker in a user namespace may not do it.
func serveCacheDrops(requests io.ReadCloser, replies io.WriteCloser) {
	defer requests.Close()
	defer replies.Close()
	b := make([]byte, 1)
	for {
		if _, err := requests.Read(b); err != nil {
			return // the worker has ended
		}
		answer := ""
		if err := dropCaches(); err != nil {
			answer = err.Error()
		}
		if _, err := fmt.Fprintln(replies, answer); err != nil {
			return
		}
	}
}

// dropCaches writes dirty pages first: only clean ones can be dropped.
func dropCaches() error {
	unix.Sync()
	err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
	if errors.Is(err, os.ErrPermission) {
		return errors.New("dropping caches needs root; start the benchmark as root (--rootless still measures as an ordinary user)")
	}
	return err
}

// cacheDropper is the worker's end.
type cacheDropper struct {
	mu      sync.Mutex
	ask     io.Writer
	replies *bufio.Reader
}

// newCacheDropper uses the descriptors that superviseWorker has left open.
func newCacheDropper() *cacheDropper {
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	return &cacheDropper{
		ask:     os.NewFile(3, "cache drop requests"),
		replies: bufio.NewReader(os.NewFile(4, "cache drop replies")),
	}
}

func (d *cacheDropper) drop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.ask.Write([]byte{0}); err != nil {
		return fmt.Errorf("ask for caches to be dropped: %w", err)
	}
	answer, err := d.replies.ReadString('\n')
	if err != nil {
		return fmt.Errorf("ask for caches to be dropped: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return errors.New(answer)
	}
	return nil
}
