package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/mountopt"
)

// compatVersion is the release of fuse-overlayfs whose options are understood.
// Programs parse it to learn what they may ask for.
const compatVersion = "1.16"

// noDevicesEnv makes fuse-overlayfs, and whoever calls it by that name, write
// whiteouts as .wh. files where it could make devices.
const noDevicesEnv = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT"

// compatLine is a command line in the manner of fuse-overlayfs and libfuse.
type compatLine struct {
	lists      []string // the values of -o
	target     string   // the last argument that is no option
	foreground bool
	debug      bool
	help       bool
	version    bool
	unknown    []string // options that libfuse would not know either
}

// parseCompat reads such a command line. It is as tolerant as libfuse: options
// and arguments come in any order, and only what is missing is an error.
func parseCompat(args []string) (compatLine, error) {
	var line compatLine
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			for _, rest := range args[i+1:] {
				line.target = rest
			}
			return line, nil
		case a == "-o":
			if i++; i == len(args) {
				return line, errors.New("-o is followed by no options; write for example: -o lowerdir=DIR")
			}
			line.lists = append(line.lists, args[i])
		case strings.HasPrefix(a, "-o"):
			line.lists = append(line.lists, a[2:])
		case a == "-f", a == "--foreground":
			line.foreground = true
		case a == "-d", a == "--debug":
			line.debug, line.foreground = true, true
		case a == "-h", a == "--help":
			line.help = true
		case a == "-V", a == "--version":
			line.version = true
		case a == "-s", a == "-n", a == "-v": // single-threaded; flags of mount(8)
		case len(a) > 1 && a[0] == '-':
			line.unknown = append(line.unknown, a)
		default: // what comes before the last one is a source, which has no meaning
			line.target = a
		}
	}
	return line, nil
}

// runCompat is the program under the name of fuse-overlayfs, or without a verb.
// Callers know two exit statuses of it: 0 and 1.
func runCompat(name string, args []string) int {
	if err := compat(name, args); err != nil {
		complain(name, err)
		return exitFailure
	}
	return exitOK
}

func compat(name string, args []string) error {
	line, err := parseCompat(args)
	switch {
	case err != nil:
		return err
	case line.help:
		compatHelp(name)
		return nil
	case line.version:
		fmt.Printf("fuse-overlayfs: version %s\nlamina version %s\n", compatVersion, version())
		return nil
	case line.target == "":
		return fmt.Errorf("no mount point given; usage: %s -o lowerdir=DIR[:DIR…][,upperdir=DIR,workdir=DIR][,OPTION…] TARGET", name)
	}
	o, err := mountopt.Parse(line.lists...)
	if err != nil {
		return err
	}
	o.Unknown = append(o.Unknown, line.unknown...)
	o.Debug = o.Debug || line.debug
	logger := fusefs.NewLogger(name)
	if o.Remount && isServed(line.target) {
		return remount(&o, line.target)
	}
	if _, set := os.LookupEnv(noDevicesEnv); set && o.Format == mountopt.FormatAuto {
		o.Format = mountopt.FormatAufs
	}
	if err := o.Check(); err != nil {
		return err
	}
	warnUnknown(logger, &o)
	callerDefaults(&o, name)
	if o.Dev == mountopt.Unset {
		o.Dev = mountopt.Off // libfuse's default, for root too
	}
	_, err = serveUnion(name, o, line.target, line.foreground || o.Debug)
	return err
}

// isServed reports whether a server of this user's has target mounted.
func isServed(target string) bool {
	c, err := fusefs.Dial(target)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func compatHelp(name string) {
	fmt.Printf(`usage: %s [options] [source] <mountpoint>

    -o OPTION[,OPTION…]  mount options, see below
    -f                   stay in the foreground
    -d   --debug         log every request (stays in the foreground)
    -h   --help          this help
    -V   --version       the version

Mount options:
`, name)
	fmt.Print(optionList(false))
}
