package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/stacks"
	"github.com/laminafs/lamina/backends/store"
	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// stackHelp explains STACK in the help of commands that take one.
const stackHelp = `STACK is what has layers: where a union is mounted, a directory (one layer), an
image (docker-archive, oci-archive, OCI layout), a tar archive, or directories as
for a mount: lowerdir=app:base,upperdir=changes. It can be left out when --lower,
--upper or -o name directories, as for lamina mount. An image or a layer of the layer
store is one by its name, or as image:NAME or layer:NAME; a dataset POOL/NAME is what
each of its snapshots has changed. STACK#3 are its layers 1 to 3 from the bottom,
STACK#2-3 the layers 2 to 3. Nothing is mounted.`

// stackFlags name a stack by directories.
type stackFlags struct{ mountFlags }

func (f *stackFlags) add(cmd *cobra.Command) {
	f.addWith(cmd, "o")
}

// addWith adds them with another letter for --options, "" for none.
func (f *stackFlags) addWith(cmd *cobra.Command, letter string) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.lowers, "lower", nil, "`DIR` is a read-only layer; repeat it for more, the bottom first")
	flags.StringVar(&f.upper, "upper", "", "`DIR` is the layer on top")
	flags.StringArrayVarP(&f.lists, "options", letter, nil, "mount `OPTIONS` that name the layers")
	for _, dir := range []string{"lower", "upper"} {
		cmd.MarkFlagDirname(dir)
	}
}

func (f *stackFlags) given() bool { return len(f.lowers) > 0 || f.upper != "" || len(f.lists) > 0 }

// open returns the stack that flags or the first argument name, and the
// arguments behind it.
func (f *stackFlags) open(cmd *cobra.Command, args []string) (*inspect.Stack, []string, error) {
	if !f.given() {
		if len(args) == 0 {
			return nil, nil, usageError{fmt.Errorf("%s needs STACK, or --lower DIR; see: %s --help", cmd.Name(), cmd.CommandPath())}
		}
		s, err := openStack(args[0])
		return s, args[1:], err
	}
	if len(f.lowers) == 0 && len(f.lists) == 0 { // an upper alone
		f.lowers, f.upper = []string{f.upper}, ""
	}
	f.work = "unused" // only a mount stages changes
	o, err := f.options()
	if err != nil {
		return nil, nil, err
	}
	name := o.Upper
	if name == "" {
		name = o.Lower[0]
	}
	return stacks.FromOptions(name, &o), args, nil
}

func openStack(text string) (*inspect.Stack, error) {
	p := newMeter("read")
	defer p.end()
	return stacks.Open(text, stacks.Options{Store: existingStore, Pool: datasetPool, Progress: func(what string, done, total int64) {
		p.show(func() string {
			return fmt.Sprintf("read %s  %d%%  %s of %s", safename.Terminal(what), done*100/max(total, 1), bytesText(uint64(done)), bytesText(uint64(total)))
		})
	}})
}

// existingStore opens the store that lamina.toml names, if it has been made.
func existingStore() (*store.Store, error) {
	var f storeFlags
	c, err := f.config()
	if err != nil {
		return nil, err
	}
	if !c.Exists() {
		return nil, fmt.Errorf("%w in %s", stacks.ErrNoStore, c.Root)
	}
	return store.Open(context.Background(), c)
}

// datasetPool connects to the pool of a dataset.
func datasetPool(ctx context.Context, full string) (*poolserver.Client, string, error) {
	pool, name, err := splitDataset(full)
	if err != nil {
		return nil, "", err
	}
	f := poolFlags{root: os.Getenv("LAMINA_POOL_ROOT")}
	c, err := f.connect(ctx, pool)
	return c, name, err
}

// A meter shows on a terminal what long work is at, after half a second.
type meter struct {
	bar *progressBar
	at  time.Time
}

func newMeter(what string) *meter {
	m := &meter{}
	if isTerminal(os.Stderr) {
		m.bar = &progressBar{out: os.Stderr, what: what, started: time.Now()}
		m.at = time.Now().Add(400 * time.Millisecond)
	}
	return m
}

// show puts up a line, ten times a second at most.
func (m *meter) show(line func() string) {
	if m.bar == nil {
		return
	}
	if now := time.Now(); now.Sub(m.at) > 100*time.Millisecond {
		m.at = now
		m.bar.show(line())
	}
}

func (m *meter) end() {
	if m.bar != nil {
		m.bar.clear()
	}
}

// troubles prints what could not be looked at, a few lines of it, and makes the
// command fail in the end.
type troubles struct{ n int }

const troublesShown = 20

func (t *troubles) tell(err error) {
	if t.n++; t.n <= troublesShown {
		fmt.Fprintf(os.Stderr, "lamina: %s\n", safename.Text(err.Error()))
	}
}

// err is the command's end when something could not be looked at.
func (t *troubles) err() error {
	switch {
	case t.n == 0:
		return nil
	case t.n > troublesShown:
		return fmt.Errorf("%d errors, of which %d are shown", t.n, troublesShown)
	}
	return exitStatus(exitFailure)
}

// errShown makes the text of an error safe to print: it may quote names.
func errShown(err error) error {
	var usage usageError
	if err == nil || errors.As(err, &usage) {
		return err
	}
	return shownError{err}
}

type shownError struct{ error }

func (e shownError) Error() string { return safename.Text(e.error.Error()) }
func (e shownError) Unwrap() error { return e.error }

// layerLabel names a layer for people.
func layerLabel(s *inspect.Stack, i int) string {
	if i >= len(s.Layers) {
		return "data-only " + safename.Terminal(s.DataOnly[i-len(s.Layers)].Name)
	}
	l := &s.Layers[i]
	name := safename.Terminal(shortDigest(l.Name))
	if l.Upper {
		name += " (upper)"
	}
	return fmt.Sprintf("%d %s", s.Number(i), name)
}

// shortDigest shortens what no person reads to the end.
func shortDigest(name string) string {
	hex := strings.TrimPrefix(name, "sha256:")
	if len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == "" {
		return hex[:12]
	}
	return name
}

// shownPath is the path of an entry for people.
func shownPath(path string) string { return safename.Terminal("/" + path) }

// createFile makes or empties a file that the user has named. Who has opened a
// layer has no umask any more, so the mode is the one that files mostly have.
func createFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
}
