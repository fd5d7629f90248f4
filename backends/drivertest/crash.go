package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/driver/views"
	"github.com/laminafs/lamina/backends/tree"
	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/fusefs/daemon"
	"github.com/laminafs/lamina/fs/mountopt"
)

// What a process is started again for.
const (
	actEnv    = "LAMINA_DRIVERTEST" // engine, root, act and its arguments, separated by newlines
	killedEnv = "LAMINA_DRIVERTEST_STEP"
)

// Main runs the tests of a driver, or the one operation that this process was
// started for.
func Main(m *testing.M, s Subject) {
	BeServer()
	if act := os.Getenv(actEnv); act != "" {
		if err := s.act(strings.Split(act, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// BeServer does not return in a process that was started to be a server: of a view by
// [Servers], or of a pool by [PoolCommand]. TestMain of tests that use them calls it
// first.
func BeServer() {
	if daemon.InBackground() {
		os.Exit(serve(os.Args))
	}
}

// Servers run this program again for each view.
var Servers = views.Background(func(o mountopt.Options, target string) []string {
	return []string{"drivertest", o.String(), target}
})

// serve is what such a process does.
func serve(argv []string) int {
	if argv[0] == poolArg {
		return servePool(argv[1])
	}
	logger := fusefs.NewLogger("drivertest")
	err := fusefs.Serve(fusefs.ServeConfig{
		Mount: func() (fusefs.Mounted, error) {
			o, err := mountopt.Parse(argv[1])
			if err != nil {
				return nil, err
			}
			return fusefs.Mount(fusefs.Config{Options: o, Target: argv[2], Log: logger})
		},
		Log: logger,
	})
	if err != nil {
		return 1
	}
	return 0
}

// act does one operation and kills this process before the step whose number
// was given; no number is never.
func (s Subject) act(args []string) error {
	kill, _ := strconv.Atoi(os.Getenv(killedEnv))
	count := 0
	step := func(string) {
		if count++; count == kill {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	armed := false // opening sweeps, and has no steps of its own
	d, err := s.Open(driver.Config{Root: args[1], Engine: driver.Engine(args[0]), Volatile: true, Servers: Servers, PoolServer: PoolCommand, Step: func(name string) {
		if armed {
			step(name)
		}
	}})
	if err != nil {
		return err
	}
	armed = true
	ctx := context.Background()
	switch verb, arg := args[2], args[3:]; verb {
	case "create":
		return d.Create(ctx, arg[0], arg[1], driver.CreateOptions{})
	case "apply":
		archive, err := os.ReadFile(arg[1])
		if err != nil {
			return err
		}
		_, err = d.Apply(ctx, arg[0], bytes.NewReader(archive), tree.ApplyOptions{})
		return err
	case "commit":
		return d.Commit(ctx, arg[0])
	case "remove":
		return d.Remove(ctx, arg[0])
	case "churn":
		return churn(ctx, d, arg[0])
	default:
		return fmt.Errorf("no act %q", verb)
	}
}

// start prepares this program for an operation.
func (b *bench) start(root string, kill int, verb string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	all := append([]string{string(b.engine), root, verb}, args...)
	cmd.Env = append(os.Environ(), actEnv+"="+strings.Join(all, "\n"), killedEnv+"="+strconv.Itoa(kill))
	return cmd
}

// crash runs an operation that dies before its n-th step. It is false when the
// operation has fewer.
func (b *bench) crash(t testing.TB, root string, n int, verb string, args ...string) bool {
	t.Helper()
	out, err := b.start(root, n, verb, args...).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && !exit.Exited():
		return true
	}
	t.Fatalf("%s: %v: %s", verb, err, out)
	return false
}

// mostSteps is more than any operation has.
const mostSteps = 60

// After a crash at any step a layer is there as it was before or as it was asked
// to be, nothing else is left, and the operation can be done again.
func testCrashes(t *testing.T, b *bench) {
	base := image(t)
	second := archive(t, entry{name: "usr/bin/.wh.su"}, entry{name: "etc/new", data: "new"})
	file := filepath.Join(tempDir(t), "archive")
	if err := os.WriteFile(file, second, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		verb    string
		prepare func(r *rig)
		args    []string
		check   func(r *rig)
	}{
		{"create", func(*rig) {}, []string{"it", "base"}, func(r *rig) {
			if _, err := r.Layer("it"); err == nil {
				equal(r.t, "a new layer", r.view("it", true), r.view("base", true))
				r.ok(r.Remove(r.ctx, "it"))
			}
			r.apply("it", "base", second)
		}},
		{"apply", func(r *rig) { r.create("it", "base") }, []string{"it", file}, func(r *rig) {
			r.ok(r.Remove(r.ctx, "it"))
			r.apply("it", "base", second)
		}},
		{"commit", func(r *rig) {
			r.create("it", "base")
			at := r.mount("it")
			write(r.t, at+"/etc/conf.d/x", "x")
			r.ok(os.Remove(at + "/usr/bin/su"))
			r.unmount("it")
		}, []string{"it"}, func(r *rig) {
			l, err := r.Layer("it")
			r.ok(err)
			if !l.Committed {
				at := r.mount("it")
				reads(r.t, at+"/etc/conf.d/x", "x")
				r.unmount("it")
				r.ok(r.Commit(r.ctx, "it"))
			}
			want := []string{"C etc/conf.d", "A etc/conf.d/x", "C usr/bin", "D usr/bin/su"}
			if got := r.changes("it"); strings.Join(got, ",") != strings.Join(want, ",") {
				r.t.Errorf("changes %q, want %q", got, want)
			}
		}},
		{"remove", func(r *rig) { r.apply("it", "base", second) }, []string{"it"}, func(r *rig) {
			if _, err := r.Layer("it"); err == nil {
				at := r.mount("it")
				reads(r.t, at+"/etc/new", "new")
				r.unmount("it")
				r.ok(r.Remove(r.ctx, "it"))
			}
			r.apply("it", "base", second)
		}},
	} {
		t.Run(c.verb, func(t *testing.T) {
			for n := 1; ; n++ {
				r := b.rig(t)
				r.apply("base", "", base)
				c.prepare(r)
				if !b.crash(t, r.root, n, c.verb, c.args...) {
					if n < 3 {
						t.Errorf("%s has %d steps that a crash was tried at", c.verb, n-1)
					}
					return
				}
				if n == mostSteps {
					t.Fatal("it never ends")
				}
				r.reopen(b)
				r.nothingLeft()
				c.check(r)
				r.ok(r.Remove(r.ctx, "it"))
				r.ok(r.Remove(r.ctx, "base"))
				r.nothingLeft()
				if t.Failed() {
					t.Fatalf("crash before step %d of %s", n, c.verb)
				}
			}
		})
	}
}

// nothingLeft checks that sweeping finds nothing more.
func (r *rig) nothingLeft() {
	r.t.Helper()
	if swept, err := r.Cleanup(r.ctx); err != nil || len(swept) > 0 {
		r.t.Errorf("left behind: %q, %v", swept, err)
	}
	if list, err := os.ReadDir(filepath.Join(r.root, "tmp")); err == nil && len(list) > 0 {
		r.t.Errorf("left in tmp: %v", list)
	}
}

// Leftovers of a process that is gone are swept, those of one that lives are not.
func testLeftovers(t *testing.T, b *bench) {
	r := b.rig(t)
	r.create("keep", "")
	for n := 1; n < mostSteps && b.crash(t, r.root, n, "create", fmt.Sprint("gone", n), ""); n++ {
	}
	r.reopen(b)
	ids, err := r.Layers()
	r.ok(err)
	for _, id := range ids {
		r.ok(r.Remove(r.ctx, id))
	}
	r.nothingLeft()

	// Within a creation, while it has no lock, another process opens the driver,
	// which sweeps.
	beside := 0
	d, err := b.open(r.root, func(step string) {
		if step != "record" || beside > 0 {
			return
		}
		beside++
		if out, err := b.start(r.root, 0, "create", "beside", "").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	r.ok(err)
	r.ok(d.Create(r.ctx, "slow", "", driver.CreateOptions{}))
	if beside == 0 {
		t.Error("creating a layer has no step \"record\"")
	}
	for _, id := range []string{"slow", "beside"} {
		at := r.mount(id)
		write(t, at+"/f", "f")
		r.unmount(id)
	}
}

// churn makes and removes layers, as one of several processes.
func churn(ctx context.Context, d driver.Driver, name string) error {
	parent := "base"
	for i := range 8 {
		id := fmt.Sprintf("%s-%d", name, i)
		if err := d.Create(ctx, id, parent, driver.CreateOptions{}); err != nil {
			return err
		}
		if i%2 == 0 {
			if err := d.Remove(ctx, id); err != nil {
				return err
			}
			continue
		}
		if err := d.Commit(ctx, id); err != nil {
			return err
		}
		if _, err := d.Cleanup(ctx); err != nil {
			return err
		}
		parent = id
	}
	// All want this one, and exactly one gets it.
	if err := d.Create(ctx, "contested", "base", driver.CreateOptions{}); err != nil && !errors.Is(err, driver.ErrExists) {
		return err
	}
	return nil
}

// Several processes on one directory do not step on each other's layers.
func testTwoProcesses(t *testing.T, b *bench) {
	r := b.rig(t)
	r.apply("base", "", image(t))
	var running []*exec.Cmd
	var said []*bytes.Buffer
	for i := range 3 {
		cmd := b.start(r.root, 0, "churn", fmt.Sprintf("p%d", i))
		out := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		r.ok(cmd.Start())
		running, said = append(running, cmd), append(said, out)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v: %s", i, err, said[i])
		}
	}
	ids, err := r.Layers()
	if err != nil || len(ids) != 1+3*4+1 {
		t.Errorf("%d layers, %v: %q", len(ids), err, ids)
	}
	r.nothingLeft()
	equal(t, "a layer of one process", r.view("p0-7", true), r.view("base", true))
}
