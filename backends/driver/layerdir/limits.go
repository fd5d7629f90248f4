package layerdir

import (
	"errors"
	"fmt"
	"os"

	"github.com/laminafs/lamina/backends/driver"
)

// LimitOptions are those of kinds whose userspace engine bounds layers.
func LimitOptions() []driver.Option {
	const only = "; only the userspace engine has it"
	return []driver.Option{
		{Name: "size", Accepts: "bytes, with k, m, g or t", Help: "how much each layer may take" + only},
		{Name: "inodes", Accepts: "a number, with k or m", Help: "how many files each layer may hold" + only},
	}
}

// TakeLimits reads them. With one set the native engine cannot be had.
func (d *Driver) TakeLimits(options map[string]string) (obstacles []string, err error) {
	for _, o := range []struct {
		name string
		to   *int64
	}{{"size", &d.Size}, {"inodes", &d.Inodes}} {
		text, set := options[o.name]
		if !set {
			continue
		}
		if *o.to, err = driver.ParseSize(text); err != nil {
			return nil, fmt.Errorf("option %s: %w", o.name, err)
		}
		if *o.to > 0 {
			obstacles = append(obstacles, "the kernel has no option "+o.name+" for this")
		}
	}
	return obstacles, nil
}

// Userspace tells whether layers can be shown by the userspace engine.
func (d *Driver) Userspace() bool {
	return d.choice.Engine == driver.Userspace || d.choice.Fallback
}

// TryNative runs a trial of the native engine in a directory of its own, unless
// nobody wants that engine, and returns what it says against it.
func (d *Driver) TryNative(trial func(dir string) []string) ([]string, error) {
	if d.want == driver.Userspace {
		return nil, nil
	}
	s, err := d.newStage("try")
	if err != nil {
		return nil, err
	}
	return trial(s.Dir), s.drop()
}

// MakeDirs makes directories in the root that are not there yet.
func (d *Driver) MakeDirs(names ...string) error {
	for _, name := range names {
		if err := os.Mkdir(d.path(name), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
