//go:build integration

package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// A config is what a seed decides on besides the operations.
type config struct {
	seed        uint64
	lowers      int // without the spare ones of live branches
	place       string
	redirect    bool
	index       bool
	metacopy    bool
	volatile    bool
	served      string // options that concern the server alone
	lowerFormat format // of lamina's lowers; the kernel's are the same trees
	upperFormat format // of lamina's upper
	live        bool   // lowers come and go
	users       int
	ids         []int
	ops         int
	layers      [][]*object // instead of random ones, the top first
	list        []op        // instead of random ones
}

// Streams of random numbers of one seed, so that more operations do not mean
// other layers.
const (
	streamConfig = iota
	streamLayers
	streamOps
)

func (c config) random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(c.seed, stream)) }

// spare is how many layers there are for live branches to add.
const spare = 2

// common chooses what both comparisons have.
func common(seed uint64) (config, *rand.Rand) {
	c := config{seed: seed, lowerFormat: formatOverlay, upperFormat: formatOverlay, users: 1, ids: []int{0}, ops: 250}
	r := c.random(streamConfig)
	c.lowers = 1 + r.IntN(1+r.IntN(20))
	c.place = pick(r, "memory", "memory", "memory", "memory", "disk", "both")
	if !rootless {
		// The kernel does not write these marks as user.overlay.*, because
		// anybody could forge them, and opens no file handles in a user
		// namespace ("falling back to index=off").
		c.redirect = r.IntN(4) > 0
		c.metacopy = c.redirect && r.IntN(2) == 0
		c.index = r.IntN(2) == 0
	}
	c.volatile = r.IntN(5) == 0
	c.served = pick(r, "", "", "", ",writeback=0", ",timeout=0", ",size=4g,inodes=100k", ",passthrough=off")
	if !rootless && r.IntN(4) == 0 {
		c.served += ",passthrough=on"
	}
	if manyIDs() {
		c.ids = []int{0, 1000, 1001}
		c.users = pick(r, 1, 3)
	}
	return c, r
}

// lockStepConfig chooses for the lock-step comparison.
func lockStepConfig(seed uint64) config {
	c, r := common(seed)
	c.lowerFormat = pick(r, formatOverlay, formatOverlay, formatXattr, formatAufs)
	c.upperFormat = pick(r, formatOverlay, formatOverlay, formatOverlay, formatXattr, formatAufs)
	if c.upperFormat == formatAufs {
		c.redirect, c.metacopy = false, false // it has no such marks
	}
	if r.IntN(3) == 0 {
		// With these features the kernel takes layers for unchangeable: it
		// refuses an upper that has seen others, or marks what hides nothing
		// (ovl_allow_offline_changes).
		c.live, c.index, c.metacopy, c.redirect = true, false, false, false
	}
	return c
}

// writeBack tells whether the kernel gathers what is written to lamina.
func (c config) writeBack() bool {
	return !strings.Contains(c.served, "writeback=0") && !strings.Contains(c.served, "passthrough=on") && !strings.Contains(c.served, "size=")
}

// manyIDs reports whether there are more ids than root's.
func manyIDs() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	var first, host, length int
	n, _ := fmt.Sscan(string(m), &first, &host, &length)
	var rest int
	more, _ := fmt.Sscan(string(m), &first, &host, &length, &rest)
	return err == nil && n == 3 && (length > 1001 || more == 4)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// kernelOptions are those of the kernel's mount, after the layers.
func (c config) kernelOptions() string {
	o := c.shared()
	if c.volatile {
		o += ",volatile"
	}
	return o
}

// laminaOptions are those of lamina's.
func (c config) laminaOptions() string {
	o := c.kernelOptions() + c.served
	if c.upperFormat != formatOverlay {
		o += ",format=" + string(c.upperFormat)
	}
	return o
}

func (c config) shared() string {
	o := ",index=" + onOff(c.index)
	if !rootless {
		o += ",redirect_dir=" + onOff(c.redirect) + ",metacopy=" + onOff(c.metacopy)
	}
	return o
}

func (c config) String() string {
	return fmt.Sprintf("seed %d: %d lowers (%s, %s), upper %s, options %s, %d users", c.seed, c.lowers, c.place, c.lowerFormat, c.upperFormat, c.laminaOptions(), c.users)
}

// scratch makes the directories of one seed.
func (c config) scratch() (s scratch, err error) {
	name := fmt.Sprint(c.seed)
	s = scratch{config: c, home: filepath.Join(memory, name), away: filepath.Join(disk, name)}
	if c.place == "disk" {
		s.home, s.away = s.away, s.home
	}
	for _, d := range []string{s.home, s.away} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return s, err
		}
	}
	return s, os.Mkdir(filepath.Join(s.home, "state"), 0o700)
}

// scratch is where a seed keeps its layers and mountpoints.
type scratch struct {
	config
	home string
	away string // on another filesystem
	// Lowers of each engine, the top first, and after them the spare ones.
	kernelLowers, laminaLowers []string
}

// mountpoint makes a mountpoint in a directory of its own: a symbolic link to
// "../f0" must not lead both engines to one file.
func (s *scratch) mountpoint(engine string) error {
	above := filepath.Join(s.home, engine)
	if err := os.RemoveAll(above); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(above, "mnt"), 0o755)
}

func (s *scratch) remove() {
	os.RemoveAll(s.home)
	os.RemoveAll(s.away)
}

// makeLayers makes the lowers, twice if the engines read different formats.
func (s *scratch) makeLayers() error {
	r := s.random(streamLayers)
	count := s.lowers
	if s.live {
		count += spare
	}
	for i := range count {
		var objects []*object
		if s.layers != nil {
			objects = s.layers[i]
		} else {
			objects = generateLayer(r, s.ids, i == count-1, fmt.Sprintf("layer%d/", i))
		}
		home := s.home
		if s.place == "both" && r.IntN(2) == 0 {
			home = s.away
		}
		dir := filepath.Join(home, fmt.Sprint("l", i))
		f := s.lowerFormat
		if f == formatAufs {
			f = formatOverlay
		}
		if err := buildLayer(dir, objects, f); err != nil {
			return err
		}
		s.kernelLowers = append(s.kernelLowers, dir)
		if s.lowerFormat == formatAufs {
			dir = filepath.Join(home, fmt.Sprint("a", i))
			if err := buildLayer(dir, objects, formatAufs); err != nil {
				return err
			}
		}
		s.laminaLowers = append(s.laminaLowers, dir)
	}
	return nil
}

// look reads the lowers as they lie there.
func (s *scratch) look() (map[string]tree, error) {
	all := map[string]tree{}
	for _, dir := range append(append([]string{}, s.kernelLowers...), s.laminaLowers...) {
		if all[dir] != nil {
			continue
		}
		t, err := readTree(dir, false)
		if err != nil {
			return nil, err
		}
		all[dir] = t
	}
	return all, nil
}
