// Command lamina mounts stacks of layers and keeps pools of thin volumes.
//
// One binary answers to several names, and to several ways of being called:
//
//	lamina VERB …                     the commands, one file cmd_VERB.go each
//	fuse-overlayfs -o … TARGET        that program's command line (compat.go)
//	lamina [SRC] TARGET -o …          the same, as mount.fuse3 calls it
//	mount.lamina SRC TARGET -o …      a helper of mount(8) (helper.go)
//	umount.lamina TARGET              a helper of umount(8), beside it
//
// What the commands do lives in the packages below fs and backends; here are only words:
// flags, tables, messages and exit statuses.
//
// The runtime would read the cgroup of the process and the whole mount table
// at the start, to adapt to a limit of CPU time. Mounting is a matter of
// milliseconds, and mount tables of container hosts are long.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Exit statuses. They are part of the interface and listed in lamina(1).
const (
	exitOK      = 0
	exitFailure = 1 // what was asked for failed
	exitUsage   = 2 // the command line was wrong, nothing was done
	exitMissing = 3 // doctor: this user cannot mount here
)

func main() { os.Exit(run(os.Args)) }

// run picks the way in which the program was called.
func run(argv []string) int {
	name, args := filepath.Base(argv[0]), argv[1:]
	switch {
	case strings.HasPrefix(name, "fuse-overlayfs"):
		return runCompat("fuse-overlayfs", args)
	case name == "mount.lamina", name == "mount.fuse.lamina":
		return runHelper(name, args)
	case name == "umount.lamina", name == "umount.fuse.lamina":
		return runUmountHelper(name, args)
	}
	root := newRoot()
	if isBareMount(args, func(verb string) bool {
		cmd, _, err := root.Find([]string{verb})
		return err == nil && cmd != root
	}) {
		return runCompat("lamina", args)
	}
	root.SetArgs(args)
	return execute(root)
}

// isBareMount reports whether a command line has options of a mount but no
// verb: "-o lowerdir=… TARGET", or with a source and a target before it.
func isBareMount(args []string, isVerb func(string) bool) bool {
	if len(args) == 0 || isVerb(args[0]) || strings.HasPrefix(args[0], "__") {
		return false
	}
	return slices.ContainsFunc(args, func(a string) bool {
		return strings.HasPrefix(a, "-o") && !strings.HasPrefix(a, "--")
	})
}

// complain prints an error the way every command does.
func complain(name string, err error) { fmt.Fprintf(os.Stderr, "%s: %v\n", name, err) }
