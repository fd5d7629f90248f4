package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// Exit statuses of mount(8) helpers.
const (
	helperUsage   = 1
	helperFailure = 32
)

// helperLine is a command line of mount(8) for its helpers:
//
//	mount.TYPE SOURCE TARGET [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
type helperLine struct {
	source, target string
	lists          []string
	fake           bool // only look whether it could be done
}

func parseHelper(args []string) (helperLine, error) {
	var line helperLine
	var words []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" || a == "-t" || a == "-N":
			if i++; i == len(args) {
				return line, fmt.Errorf("%s is followed by nothing", a)
			}
			if a == "-o" {
				line.lists = append(line.lists, args[i])
			}
		case strings.HasPrefix(a, "-o"):
			line.lists = append(line.lists, a[2:])
		case len(a) > 1 && a[0] == '-':
			// Clusters such as -sv. Only f (fake) changes anything: there is no
			// mtab to spare (n) and unknown options are no errors anyway (s).
			if strings.Trim(a[1:], "sfnv") != "" {
				return line, fmt.Errorf("unknown flag %s; accepted: -s -f -n -v -N NAMESPACE -o OPTIONS -t TYPE", a)
			}
			line.fake = line.fake || strings.Contains(a, "f")
		default:
			words = append(words, a)
		}
	}
	if len(words) != 2 {
		return line, fmt.Errorf("a source and a target are needed, got %q; usage: mount -t fuse.lamina SOURCE TARGET -o lowerdir=DIR[:DIR…][,OPTION…]", words)
	}
	line.source, line.target = words[0], words[1]
	return line, nil
}

// runHelper is the program as a helper of mount(8), for mount -t fuse.lamina
// and for lines of fstab.
func runHelper(name string, args []string) int {
	err := helper(name, args)
	if err == nil {
		return exitOK
	}
	complain(name, err)
	if bad := (*mountopt.Error)(nil); errors.As(err, &bad) || errors.As(err, &usageError{}) {
		return helperUsage
	}
	return helperFailure
}

func helper(name string, args []string) error {
	line, err := parseHelper(args)
	if err != nil {
		return usageError{err}
	}
	o, err := mountopt.Parse(line.lists...)
	if err != nil {
		return err
	}
	if o.Remount {
		if line.fake {
			return nil
		}
		return remount(&o, line.target)
	}
	if err := o.Check(); err != nil {
		return err
	}
	warnUnknown(fusefs.NewLogger(name), &o)
	if line.fake {
		return nil
	}
	if o.FSName == "" && line.source != "none" {
		o.FSName = line.source
	}
	callerDefaults(&o, "lamina")
	_, err = serveUnion(name, o, line.target, false)
	return err
}

// runUmountHelper is the program as a helper of umount(8):
//
//	umount.TYPE TARGET [-flnrv] [-N NAMESPACE] [-t TYPE]
//
// It is there to wait. umount(2) returns before the server of a FUSE mount has let
// go of its layers, so that "umount UNION && umount LAYERS" fails at times.
func runUmountHelper(name string, args []string) int {
	target, flags, err := parseUmountHelper(args)
	if err != nil {
		complain(name, err)
		return helperUsage
	}
	if strings.Contains(flags, "f") {
		err = os.NewSyscallError("umount2", unix.Unmount(target, unix.MNT_FORCE))
	} else {
		err = unmount(target, strings.Contains(flags, "l"))
	}
	if err != nil {
		complain(name, err)
		return helperFailure
	}
	return exitOK
}

func parseUmountHelper(args []string) (target, flags string, err error) {
	var words []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-t" || a == "-N":
			if i++; i == len(args) {
				return "", "", fmt.Errorf("%s is followed by nothing", a)
			}
		case len(a) > 1 && a[0] == '-':
			if strings.Trim(a[1:], "flnrv") != "" {
				return "", "", fmt.Errorf("unknown flag %s; accepted: -f -l -n -r -v -N NAMESPACE -t TYPE", a)
			}
			flags += a[1:]
		default:
			words = append(words, a)
		}
	}
	if len(words) != 1 {
		return "", "", fmt.Errorf("one target is needed, got %q; usage: umount TARGET", words)
	}
	return words[0], flags, nil
}
