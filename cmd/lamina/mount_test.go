package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

// The main job: mount a stack, change it, find the changes in the upper.
func TestMountChangeLookUnmount(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		out := s.ok("lamina", "mount", "--lower", "base", "--lower", "app", "--upper", "upper", "--work", "work", "--engine", "fuse", "--json", "mnt")
		var mounted struct {
			Engine, Why, Target, Type string
			PID                       int
		}
		if err := json.Unmarshal([]byte(out), &mounted); err != nil || mounted.Engine != "fuse" || mounted.Target != filepath.Join(s.dir, "mnt") || mounted.PID == 0 {
			t.Errorf("--json printed %s (%v)", out, err)
		}
		if got := s.sh("cat mnt/both; rm mnt/base-only; echo new > mnt/new; ls mnt"); got != "appboth\nnew\n" {
			t.Errorf("in the union: %q", got)
		}
		if got := s.sh("cat base/base-only upper/new; ls upper"); got != "basenew\nbase-only\nnew\n" {
			t.Errorf("in the layers: %q", got)
		}
		s.checkLive()
		s.ok("lamina", "umount", "mnt")
		if left := s.mounts(); left != "" {
			t.Errorf("left mounted: %s", left)
		}
		for range 100 {
			if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", mounted.PID)); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error("the server still runs a second after umount")
	})
}

// checkLive looks at a live mount through the commands for that.
func (s *stage) checkLive() {
	s.t.Helper()
	var rows []mountRow
	if err := json.Unmarshal([]byte(s.ok("lamina", "ps", "--json")), &rows); err != nil || len(rows) != 1 {
		s.t.Fatalf("ps shows %d mounts (%v), want one", len(rows), err)
	}
	if r := rows[0]; r.Lowers != 2 || r.Upper != filepath.Join(s.dir, "upper") || r.Counters.Total() == 0 {
		s.t.Errorf("ps: %+v", r)
	}
	if table := s.ok("lamina", "ps"); !strings.HasPrefix(table, "TARGET") || !strings.Contains(table, rows[0].Target) {
		s.t.Errorf("ps: %s", table)
	}
	var st mountStat
	if err := json.Unmarshal([]byte(s.ok("lamina", "stat", "--json", "mnt")), &st); err != nil || len(st.Layers) != 3 || len(st.Options) == 0 {
		s.t.Errorf("stat: %+v (%v)", st, err)
	}
	want := []string{filepath.Join(s.dir, "upper"), filepath.Join(s.dir, "app"), filepath.Join(s.dir, "base")}
	var got []string
	for _, l := range st.Layers {
		got = append(got, l.Path)
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("layers from the top: %q, want %q", got, want)
	}
	if list := s.ok("lamina", "branch", "list", "mnt"); !strings.Contains(list, want[2]) {
		s.t.Errorf("branch list: %s", list)
	}
}

// Who moves an upper to where there are no devices tells fuse-overlayfs so by an
// environment variable.
func TestWhiteoutsWithoutDevices(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.sh("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=1 fuse-overlayfs -o lowerdir=base,upperdir=upper,workdir=work mnt; rm mnt/base-only")
		if got := s.sh("ls -A upper; test ! -e mnt/base-only"); got != ".wh.base-only\n" {
			t.Errorf("the upper: %s", got)
		}
	})
}

// Container engines call it like this and look for that.
func TestFuseOverlayfsName(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		got := s.run("fuse-overlayfs", "-o", "lowerdir=app:base,,upperdir=upper,workdir=work,volatile,frobnicate", "overlay", "mnt")
		if got.status != 0 || got.stderr != "fuse-overlayfs: unknown option ignored: frobnicate\n" || got.stdout != "" {
			t.Fatalf("%+v", got)
		}
		f := strings.Fields(s.mounts())
		if len(f) < 4 || f[0] != "fuse-overlayfs" || f[2] != "fuse.fuse-overlayfs" {
			t.Errorf("mount table: %s", s.mounts())
		}
		options := strings.Split(f[3], ",")
		for option, want := range map[string]bool{"allow_other": s.role.uid == 0, "nosuid": s.role.uid != 0, "nodev": true, "default_permissions": true, "noatime": true} {
			if slices.Contains(options, option) != want {
				t.Errorf("option %s: %v, want %v, in %s", option, !want, want, f[3])
			}
		}
		var st unix.Statfs_t
		if s.role.uid == 0 {
			if err := unix.Statfs(filepath.Join(s.dir, "mnt"), &st); err != nil || st.Type != 0x65735546 {
				t.Errorf("statfs type %#x (%v)", st.Type, err)
			}
		}
		if got := s.sh("cat mnt/both mnt/base-only"); got != "appbase" {
			t.Errorf("in the union: %q", got)
		}
		if s.role.uid == 0 {
			if err := unix.Unmount(filepath.Join(s.dir, "mnt"), unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		} else {
			s.ok("fusermount3", "-u", "mnt")
		}
	})
}

func TestReadOnlyWithoutUpper(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "-o", "lowerdir=app:base", "mnt")
		if got := s.run("sh", "-c", "echo x > mnt/new"); got.status == 0 || !strings.Contains(got.stderr, "Read-only") {
			t.Errorf("writing: %+v", got)
		}
		s.ok("lamina", "umount", "mnt")
	})
}

// mount(8) finds helpers by name and adds flags and options of its own.
func TestMountHelperAndRemount(t *testing.T) {
	for _, r := range roles(t)[:1] {
		s := newStage(t, r)
		s.ok("mount.lamina", "layers", "mnt", "-n", "-v", "-o", "rw,noauto,x-systemd.automount,lowerdir=app:base,upperdir=upper,workdir=work,suid")
		if f := strings.Fields(s.mounts()); len(f) < 4 || f[0] != "layers" || f[2] != "fuse.lamina" {
			t.Errorf("mount table: %s", s.mounts())
		}
		s.ok("mount.lamina", "layers", "mnt", "-o", "remount,ro")
		if got := s.run("sh", "-c", "echo x > mnt/new"); got.status == 0 {
			t.Error("written to after remount,ro")
		}
		s.ok("lamina", "branch", "mod", "mnt", "rw")
		s.sh("echo x > mnt/new")
		s.ok("mount.lamina", "layers", "mnt", "-f", "-o", "lowerdir=base") // fake
		if strings.Count(s.mounts(), "\n") != 0 {
			t.Errorf("a fake mount mounted: %s", s.mounts())
		}
		// The layers are free when umount(8) returns: here their lock is.
		for range 5 {
			s.ok("umount.lamina", "mnt", "-v", "-t", "fuse.lamina")
			s.sh("flock --exclusive --nonblock work/work true")
			s.ok("mount.lamina", "layers", "mnt", "-o", "lowerdir=app:base,upperdir=upper,workdir=work")
		}
		got := s.run("sh", "-c", "cd mnt && umount.lamina ../mnt; echo status $?; umount.lamina ../mnt -l && cat both")
		if got.stdout != "status 32\napp" {
			t.Errorf("of a busy mount: %+v", got)
		}
	}
}

func TestBusyMountIsKeptUnlessLazy(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.ok("lamina", "mount", "--lower", "base", "--engine", "fuse", "mnt")
		got := s.run("sh", "-c", "cd mnt && lamina umount ../mnt; echo status $?; lamina umount -l ../mnt && cat both")
		if got.status != 0 || got.stdout != "status 1\nbase" || !strings.Contains(got.stderr, "umount -l") {
			t.Errorf("%+v", got)
		}
	})
}

func TestForegroundEndsWithASignal(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		s.sh(`lamina mount -f --lower base mnt & pid=$!
			for i in $(seq 100); do [ -e mnt/both ] && break; sleep 0.05; done
			cat mnt/both; kill -TERM $pid; wait $pid`)
		if left := s.mounts(); left != "" {
			t.Errorf("left mounted: %s", left)
		}
	})
}

// The root of a user namespace mounts without fusermount3, and is found from
// outside.
func TestInsideOfAUserNamespace(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip(err)
	}
	for _, r := range roles(t)[1:] {
		s := newStage(t, r)
		if got := s.run(unshare, "-Urm", "true"); got.status != 0 {
			t.Skipf("no user namespaces: %s", got.stderr)
		}
		got := s.ok(unshare, "-Urm", "sh", "-ec", `
			lamina mount -q --engine fuse --lower base --lower app --upper upper --work work mnt
			cat mnt/both; rm mnt/base-only; ls mnt; lamina umount mnt
			lamina mount --engine auto --lower base --lower app --upper upper --work work mnt
			ls mnt; umount mnt
			fuse-overlayfs -o lowerdir=base mnt; cat mnt/base-only`)
		if got != "appboth\nboth\nbase" {
			t.Errorf("inside: %q", got)
		}
		// The server keeps its mount namespace alive.
		if rows := s.ok("lamina", "ps"); !strings.Contains(rows, filepath.Join(s.dir, "mnt")) {
			t.Errorf("outside: %s", rows)
		}
		s.ok("lamina", "umount", "mnt")
		if rows := s.ok("lamina", "ps", "--json"); rows != "[]\n" {
			t.Errorf("after umount from outside: %s", rows)
		}
	}
}

func TestAutoTakesTheKernelWhereItCan(t *testing.T) {
	s := newStage(t, roles(t)[0])
	if err := unix.Mount("layers", s.dir, "tmpfs", 0, ""); err != nil { // the tests may lie on an overlay
		t.Fatal(err)
	}
	defer unix.Unmount(s.dir, unix.MNT_DETACH)
	s.sh("mkdir base app upper work mnt run; echo a > app/a")
	args := []string{"lamina", "mount", "--lower", "base", "--lower", "app", "--upper", "upper", "--work", "work"}
	got := s.run(append(args, "mnt")...)
	if got.status != 0 || !strings.Contains(s.mounts(), " overlay ") || !strings.Contains(got.stderr, "kernel overlayfs") {
		t.Errorf("%+v, mounted %s", got, s.mounts())
	}
	s.ok("lamina", "umount", "mnt")
	got = s.run(append(args, "-o", "size=1G", "mnt")...)
	if got.status != 0 || !strings.Contains(s.mounts(), " fuse.lamina ") || !strings.Contains(got.stderr, "no option size") {
		t.Errorf("%+v, mounted %s", got, s.mounts())
	}
	s.ok("lamina", "umount", "mnt")
	if got := s.run(append(args, "--engine", "kernel", "-o", "size=1G", "mnt")...); got.status != exitFailure || !strings.Contains(got.stderr, "size") {
		t.Errorf("%+v", got)
	}
}

func TestDoctorKnowsWhatWorks(t *testing.T) {
	each(t, func(t *testing.T, s *stage) {
		var report fusefs.Report
		if err := json.Unmarshal([]byte(s.ok("lamina", "doctor", "--json", ".")), &report); err != nil {
			t.Fatal(err)
		}
		if !report.CanMount || len(report.Findings) < 10 {
			t.Errorf("%+v", report)
		}
		text := s.ok("lamina", "doctor")
		for _, f := range report.Findings {
			if f.Status == fusefs.StatusMissing && f.Fix == "" {
				t.Errorf("%s is missing, and nothing mends it", f.Name)
			}
			if f.Fix != "" && !strings.Contains(text, f.Fix) {
				t.Errorf("the text lacks the command %s", f.Fix)
			}
		}
		if left := s.sh("ls -A"); left != "app\nbase\nmnt\nrun\nupper\nwork\n" {
			t.Errorf("doctor left something: %s", left)
		}
	})
}

func TestWatchShowsAMountThatAppears(t *testing.T) {
	s := newStage(t, roles(t)[0])
	out := s.sh(`lamina ps --watch --json --interval 50ms > watched & pid=$!
		sleep 0.2; lamina mount -q --engine fuse --lower base mnt; sleep 0.3; lamina umount mnt; sleep 0.2
		kill -INT $pid; wait $pid; cat watched`)
	seen := map[int]bool{}
	for line := range strings.Lines(out) {
		var rows []mountRow
		if err := json.Unmarshal([]byte(line), &rows); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		seen[len(rows)] = true
	}
	if !seen[0] || !seen[1] {
		t.Errorf("looks with so many mounts: %v, want some with none and some with one", seen)
	}
}
