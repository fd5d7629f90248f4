package main

import (
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// serveUnion serves a union over FUSE: in the foreground until it is unmounted,
// else it returns when the mount is usable.
func serveUnion(name string, o mountopt.Options, target string, foreground bool) (fusefs.Info, error) {
	if err := o.CheckServer(); err != nil {
		return fusefs.Info{}, err
	}
	if !foreground && !fusefs.InBackground() {
		return fusefs.Background()
	}
	if err := absolute(&o); err != nil {
		return fusefs.Info{}, err
	}
	var info fusefs.Info
	logger := fusefs.NewLogger(name)
	err := fusefs.Serve(fusefs.ServeConfig{
		Mount: func() (fusefs.Mounted, error) {
			return fusefs.Mount(fusefs.Config{Options: o, Target: target, Log: logger})
		},
		Log:     logger,
		LogFile: o.LogFile,

		AutoUnmount: o.AutoUnmount,
		Version:     version(),
		Ready:       func(i fusefs.Info) { info = i },
	})
	return info, err
}

// absolute ties relative layers to the directory that the command was started
// in: the server leaves it, and others ask it for its layers.
func absolute(o *mountopt.Options) error {
	cwd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the working directory, which relative layers start from: %w", err)
	}
	o.Absolute(cwd)
	return nil
}

// callerDefaults fills in what a mount has unless it was asked for otherwise:
// the same as fuse-overlayfs gives. Mounts of root are for everybody and honour
// setuid programs.
func callerDefaults(o *mountopt.Options, name string) {
	if o.FSName == "" {
		o.FSName = name
	}
	if o.Subtype == "" {
		o.Subtype = name
	}
	if o.Atime == mountopt.AtimeDefault {
		o.Atime = mountopt.AtimeNever
	}
	if os.Geteuid() == 0 && !o.AllowRoot {
		o.AllowOther = true
	}
}

// An engine is what does the union's work.
type engine string

const (
	engineAuto   engine = "auto"
	engineFUSE   engine = "fuse"
	engineKernel engine = "kernel"
)

func (e engine) String() string {
	if e == engineKernel {
		return "kernel overlayfs"
	}
	return "lamina's FUSE server"
}

// A choice says which engine was taken, and why.
type choice struct {
	Engine engine `json:"engine"`
	Why    string `json:"why"`
}

// chooseEngine decides before anything is mounted, as far as options and rights
// tell. For "auto" the kernel may still refuse: kernelRefused makes the choice
// then.
func chooseEngine(want engine, o *mountopt.Options, foreground bool, euid int) choice {
	if want != engineAuto {
		return choice{want, "asked for by --engine"}
	}
	if euid != 0 {
		return choice{engineFUSE, "kernel overlayfs is for root and user namespaces"}
	}
	if foreground {
		return choice{engineFUSE, "only a server can run in the foreground"}
	}
	if obstacles := o.KernelObstacles(); len(obstacles) > 0 {
		return choice{engineFUSE, obstacles[0]}
	}
	return choice{engineKernel, "kernel overlayfs has every option"}
}

func kernelRefused(err error) choice {
	return choice{engineFUSE, fmt.Sprintf("the kernel refused: %v", err)}
}

// mount mounts a union by the engine of the caller's choice.
func mount(want engine, o mountopt.Options, target string, foreground bool) (fusefs.Info, choice, error) {
	if fusefs.InBackground() { // the parent tried the kernel
		callerDefaults(&o, "lamina")
		info, err := serveUnion("lamina", o, target, false)
		return info, choice{Engine: engineFUSE}, err
	}
	c := chooseEngine(want, &o, foreground, os.Geteuid())
	var refused error
	if c.Engine == engineKernel {
		if err := absolute(&o); err != nil { // for readers of the mount table
			return fusefs.Info{}, c, err
		}
		info, err := fusefs.MountKernel(&o, target)
		if err == nil || want == engineKernel {
			return info, c, err
		}
		refused, c = err, kernelRefused(err)
	}
	callerDefaults(&o, "lamina")
	info, err := serveUnion("lamina", o, target, foreground)
	if bad := (*mountopt.Error)(nil); refused != nil && errors.As(err, &bad) {
		err = fmt.Errorf("%w; that was tried: %w", err, refused)
	}
	return info, c, err
}

// warnUnknown names the options that nothing here knows, one line each.
func warnUnknown(logger *log.Logger, o *mountopt.Options) {
	if fusefs.InBackground() { // the parent did
		return
	}
	for _, unknown := range o.Unknown {
		logger.Printf("unknown option ignored: %s", unknown)
	}
}

// remount carries out mount -o remount, which can change whether the union is
// read-only.
func remount(o *mountopt.Options, target string) error {
	return withServer(target, func(c *fusefs.Client) error { return setReadOnly(c, o.ReadOnly) })
}

func setReadOnly(c *fusefs.Client, readOnly bool) error {
	if !readOnly {
		layers, err := c.Layers()
		if err != nil {
			return err
		}
		if len(layers) == 0 || layers[0].Role != fusefs.RoleUpper {
			return fmt.Errorf("%s has no upper directory to write to; mount it anew with one", c.Info.Target)
		}
	}
	return c.SetReadOnly(readOnly)
}
