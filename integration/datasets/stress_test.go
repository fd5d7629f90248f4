//go:build integration

package datasets

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stresses is stress in several processes, which share nothing but the mount.
func stresses(dir string) error {
	failed := make(chan error, 3)
	for i := range 3 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "LAMINA_TEST_CLIENT=stress")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if i == 0 {
			cmd.Stdout = os.Stdout // one of them tells how far it is
		}
		go func() { failed <- cmd.Run() }()
	}
	return errors.Join(<-failed, <-failed, <-failed)
}

// stress has four programs in one do all kinds of things to the same few names, for as
// long as the mount is there.
func stress(dir string) error {
	var steps atomic.Int64
	failed := make(chan error, 4)
	for worker := range uint64(4) {
		rng := rand.New(rand.NewPCG(worker, uint64(os.Getpid())))
		go func() {
			for {
				if err := stressStep(dir, rng); err != nil {
					failed <- err
					return
				}
				if n := steps.Add(1); n%50 == 0 {
					fmt.Println(n)
				}
			}
		}()
	}
	return <-failed
}

// stressStep does one thing. Only errors that say that the mount is gone, or that
// something is wrong with it, are returned.
func stressStep(dir string, rng *rand.Rand) error {
	name := func() string {
		path := dir
		for range rng.IntN(3) {
			path = filepath.Join(path, fmt.Sprint("d", rng.IntN(3)))
		}
		return filepath.Join(path, fmt.Sprint("f", rng.IntN(12)))
	}
	a, b := name(), name()
	err := error(nil)
	switch rng.IntN(16) {
	case 0, 1:
		err = os.WriteFile(a, random(rng.IntN(60_000), rng.Uint64()), 0o644)
	case 2:
		err = os.MkdirAll(filepath.Join(filepath.Dir(a), fmt.Sprint("d", rng.IntN(3))), 0o755)
	case 3, 4:
		err = os.Rename(a, b)
	case 5:
		err = unix.Renameat2(unix.AT_FDCWD, filepath.Dir(a), unix.AT_FDCWD, filepath.Dir(b), unix.RENAME_EXCHANGE)
	case 6:
		err = os.Link(a, b)
	case 7:
		err = os.Remove(a)
	case 8:
		err = os.Remove(filepath.Dir(a))
	case 9:
		err = os.Symlink(b, a)
	case 10:
		err = unix.Setxattr(a, fmt.Sprint("user.x", rng.IntN(4)), random(rng.IntN(5000), 1), 0)
	case 11:
		err = os.Truncate(a, rng.Int64N(1<<20))
	case 12:
		_, err = os.ReadDir(filepath.Dir(a))
	case 13:
		_, err = os.ReadFile(a)
	case 14:
		err = usesOpenFile(a, b, rng)
	case 15:
		err = os.Chmod(a, os.FileMode(rng.IntN(0o1000))|0o600)
	}
	for _, bad := range []error{unix.ENOTCONN, unix.ECONNABORTED, unix.EIO, unix.ESTALE, unix.EUCLEAN} {
		if errors.Is(err, bad) {
			return err
		}
	}
	return nil
}

// usesOpenFile writes to a file that others may remove meanwhile, and copies from it.
func usesOpenFile(a, b string, rng *rand.Rand) error {
	f, err := os.OpenFile(a, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if rng.IntN(2) == 0 {
		os.Remove(a)
	}
	off := rng.Int64N(1 << 20)
	if _, err := f.WriteAt(random(1+rng.IntN(100_000), 2), off); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off/2, 1+off/2); err != nil {
		return err
	}
	to, err := os.OpenFile(b, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := unix.CopyFileRange(int(f.Fd()), nil, int(to.Fd()), nil, 1<<20, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return to.Sync()
}

// Whatever programs do at the same time, with snapshots made and destroyed below them,
// the dataset stays sound (the server checks it in the end), and no program sees an
// error that only damage explains.
func TestManyProgramsAtOnce(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		cmd := s.command(s.uid, "/proc/self/exe")
		cmd.Env = append(cmd.Env, "LAMINA_TEST_CLIENT=stress", "LAMINA_TEST_DIR="+dir)
		done := make(chan string, 1)
		go func() {
			out, _ := cmd.CombinedOutput()
			done <- string(out)
		}()
		snaps := filepath.Join(dir, ".lamina/snapshot")
		for i := range 8 {
			select {
			case out := <-done:
				t.Fatalf("a program failed: %s", out)
			case <-time.After(250 * time.Millisecond):
			}
			name := fmt.Sprint("s", i)
			s.ask("snapshot", "set", name)
			filepath.WalkDir(filepath.Join(snaps, name), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					_, err = os.ReadFile(path)
				}
				if err != nil && !errors.Is(err, unix.EACCES) {
					t.Errorf("in a snapshot: %v", err)
				}
				return nil
			})
			if i%3 == 2 {
				s.ask("destroy", fmt.Sprint("set@s", i-1))
			}
		}
		cmd.Process.Kill()
		<-done
	})
}

// A server that is killed under many programs leaves a pool that is sound as it lies
// there, and again when it was mounted. LAMINA_KILLS says how often it is killed.
func TestAKilledServerLeavesASoundDataset(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		for round := range number("LAMINA_KILLS", 3) {
			if n := s.killUnder("stress in processes", dir, time.Duration(200+300*(round%4))*time.Millisecond); n < 50 {
				t.Errorf("only %d steps", n)
			}
		}
	})
}
