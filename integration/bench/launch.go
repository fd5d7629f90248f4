package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launch measures in a worker of its own and returns what it found out. A run
// that was interrupted or failed half-way returns an error, and a report too if
// the worker could still write one.
func launch(cmd command) (r *report, err error) {
	if err := becomeSubreaper(); err != nil {
		return nil, err
	}
	scratch, err := makeScratch(cmd)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeTree(scratch)) }()

	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	cmd.config.Lamina, cmd.config.LaminaProblem = provideLamina(ctx, cmd.lamina, scratch)
	if err := prepareWorker(cmd, scratch); err != nil {
		return nil, err
	}
	runErr := superviseWorker(ctx, workerCommand(cmd, scratch))
	// Servers that outlived a killed worker are children of this process now.
	runErr = errors.Join(runErr, endChildren())
	r, err = readReport(filepath.Join(scratch, resultFile))
	if errors.Is(err, fs.ErrNotExist) && runErr != nil {
		err = nil // the worker's own error says why there is no report
	}
	return r, errors.Join(runErr, err)
}

// Files in the scratch directory through which launcher and worker talk.
const (
	configFile = "config.json"
	resultFile = "result.json"
	workerVerb = "worker"
)

// makeScratch makes the one directory that everything is in. An ordinary user
// must be able to search it, also when root makes it.
func makeScratch(cmd command) (string, error) {
	dir, err := filepath.Abs(cmd.dir)
	if err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(dir, "lamina-bench-")
	if err != nil {
		return "", fmt.Errorf("make scratch directory: %w; choose another place with --dir", err)
	}
	return scratch, os.Chmod(scratch, 0o755)
}

// provideLamina gives the lamina binary to measure, or why there is none. That is
// no error of the run: the peers can be compared without it.
func provideLamina(ctx context.Context, given, scratch string) (binary, problem string) {
	if given != "" {
		abs, err := filepath.Abs(given)
		if err != nil {
			return "", err.Error()
		}
		return abs, ""
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err.Error()
	}
	binary = filepath.Join(scratch, "lamina")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/lamina")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("go build ./cmd/lamina: %v: %s", err, firstLine(string(out)))
	}
	return binary, ""
}

// moduleRoot is the directory of the go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("no go.mod above the working directory: run inside the checkout, or give --lamina")
		}
	}
}

// prepareWorker leaves the configuration and a copy of this program in scratch:
// `go run` keeps its binary where an ordinary user may not look.
func prepareWorker(cmd command, scratch string) error {
	data, err := json.Marshal(cmd.config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(scratch, configFile), data, 0o644); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("copy this program for the worker: %w", err)
	}
	if err := os.WriteFile(filepath.Join(scratch, "bench"), self, 0o755); err != nil {
		return fmt.Errorf("copy this program for the worker: %w", err)
	}
	if cmd.config.Rootless && os.Geteuid() == 0 {
		return os.Chown(scratch, cmd.uid, cmd.uid)
	}
	return nil
}

// workerCommand starts this program as worker in a mount namespace of its own, so
// that no mount of it is ever seen outside.
func workerCommand(cmd command, scratch string) *exec.Cmd {
	argv := []string{filepath.Join(scratch, "bench"), workerVerb, scratch}
	attr := &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	switch {
	case !cmd.config.Rootless:
		attr.Unshareflags = unix.CLONE_NEWNS
	case os.Geteuid() == 0:
		id := strconv.Itoa(cmd.uid)
		argv = append([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "unshare", "-Urm"}, argv...)
	default:
		argv = append([]string{"unshare", "-Urm"}, argv...)
	}
	worker := exec.Command(argv[0], argv[1:]...)
	worker.Dir = scratch
	worker.Stdout, worker.Stderr = os.Stderr, os.Stderr
	worker.SysProcAttr = attr
	return worker
}

// superviseWorker runs the worker to its end and drops the caches when it asks.
// A worker whose run is interrupted gets SIGTERM and a minute to clean up.
func superviseWorker(ctx context.Context, worker *exec.Cmd) error {
	requests, ask, err := os.Pipe()
	if err != nil {
		return err
	}
	answer, replies, err := os.Pipe()
	if err != nil {
		return err
	}
	worker.ExtraFiles = []*os.File{ask, answer} // descriptors 3 and 4
	err = worker.Start()
	ask.Close()
	answer.Close()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	go serveCacheDrops(requests, replies)
	pid := worker.Process.Pid
	defer context.AfterFunc(ctx, func() {
		_ = unix.Kill(pid, unix.SIGTERM) // fails only if it has ended, which is what we want
		time.AfterFunc(time.Minute, func() { _ = worker.Process.Kill() })
	})()
	if err := worker.Wait(); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
