package poolserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/moby/sys/mountinfo"

	"github.com/laminafs/lamina/backends/blocks"
	"github.com/laminafs/lamina/backends/serve"
	"github.com/laminafs/lamina/fs/fusefs"
)

// A server that is killed cannot end its exports. They stand in a file beside its
// socket, and the next server makes them again:
//
//	export added or ended ──> server.exports ──> next start
//	end of the server     ──> file removed        ├─ mounts of the dead server taken away
//	                                              ├─ loop devices over them detached, or named
//	                                              └─ the same exports made
//
// Crash between an export and the file: one that is not made again, or a mount that
// its guard takes away.

// A remembered export is one as the file has it.
type remembered struct {
	Kind       string   `json:"kind"`
	Target     string   `json:"target"`
	Volume     string   `json:"volume,omitempty"`
	Private    bool     `json:"private,omitempty"`
	AllowOther bool     `json:"allow_other,omitempty"`
	Options    []string `json:"options,omitempty"`
	Dev        string   `json:"dev,omitempty"`
}

// rememberedPath is the file.
func (p Place) rememberedPath() string { return p.beside() + ".exports" }

// sameAs reports whether an export is what somebody asks for.
func (e *export) sameAs(o *export) bool {
	return e.kind == o.kind && e.target == o.target && e.volume == o.volume && e.private == o.private && e.allowOther == o.allowOther && slices.Equal(e.options, o.options)
}

// claim reports whether an export was made again and nobody has asked for it yet: a
// script that exports anew after a crash finds what it wants.
func (x *exports) claim(e *export) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	was := e.remade
	e.remade = false
	return was
}

// remember writes down which exports there are.
func (s *Server) remember() {
	s.exports.saving.Lock()
	defer s.exports.saving.Unlock()
	var list []remembered
	for _, e := range s.exports.all() {
		volume := e.volume
		if e.mount != nil {
			volume = e.mount.Dataset() // as it is called now
		}
		list = append(list, remembered{e.kind, e.target, volume, e.private, e.allowOther, e.options, e.dev})
	}
	path := s.cfg.Place.rememberedPath()
	var err error
	if len(list) == 0 || s.exports.over {
		if err = os.Remove(path); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	} else {
		err = replaceFile(path, list)
	}
	if err != nil {
		s.log.Printf("exports will not be made again if the server is killed: %v", err)
	}
}

// forget ends remembering: the server ends as it was told to.
func (s *Server) forget() {
	s.exports.saving.Lock()
	s.exports.over = true
	s.exports.saving.Unlock()
	s.remember()
}

// replaceFile writes v as JSON in place of a file.
func replaceFile(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// restoreExports makes the exports of a server that was killed again. What cannot be
// made is logged and forgotten.
func (s *Server) restoreExports() {
	raw, err := os.ReadFile(s.cfg.Place.rememberedPath())
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var list []remembered
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	if err != nil {
		s.log.Printf("exports of the server before: %v", err)
	}
	for _, r := range list {
		if r.Kind == ExportFUSE || r.Kind == ExportDataset {
			s.clearMount(r)
		}
	}
	for _, r := range list {
		if r.Private { // for loop devices, which have died with it
			os.Remove(r.Target) // fails where somebody has put something there
			continue
		}
		if err := s.remake(r); err != nil {
			s.log.Printf("make the exports of the server before again: %v", err)
		}
	}
	s.remember()
}

func (s *Server) remake(r remembered) error {
	var err error
	switch r.Kind {
	case ExportFUSE:
		err = s.mount(r.Target, false, r.AllowOther)
	case ExportNBD:
		err = s.listen(r.Target, r.Volume)
	case ExportDataset:
		err = s.mountDataset(r.Volume, r.Target, r.Options...)
	default:
		err = fmt.Errorf("export to %s: unknown kind %q", r.Target, r.Kind)
	}
	if err != nil {
		return err
	}
	s.exports.mu.Lock()
	defer s.exports.mu.Unlock()
	if e := s.exports.list[r.Target]; e != nil {
		e.remade = true
	}
	s.log.Printf("%s was exported by the server before, and is again", r.Target)
	return nil
}

// clearMount takes away the mount of a dead server, if its guard has not done so,
// and the loop devices over its files that nothing uses.
func (s *Server) clearMount(r remembered) {
	top, err := topMount(r.Target)
	switch {
	case err != nil:
		s.log.Printf("look for the mount of the server before on %s: %v", r.Target, err)
		return
	case top == r.Dev && r.Dev != "":
		if err := fusefs.Unmount(r.Target, true); err != nil {
			s.log.Printf("take away the mount of the server before: %v", err)
		}
	}
	for _, l := range serve.DeadLoops(blocks.Volumes{Pool: s.pool}, r.Target) {
		if !l.InUse() {
			if err = l.Detach(); err == nil {
				s.log.Printf("%s lost its server, and was detached", l)
				continue
			}
		}
		s.log.Printf("%s lost its server; take it away with: %s", l, l.Release())
		s.exports.mu.Lock()
		s.exports.dead = append(s.exports.dead, l)
		s.exports.mu.Unlock()
	}
}

// topMount returns the device number of what is mounted on a directory last, as the
// mount table has it, and nothing where it is no mount point.
func topMount(target string) (dev string, err error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != target, false })
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	last := mounts[len(mounts)-1]
	return fmt.Sprintf("%d:%d", last.Major, last.Minor), nil
}

// deadLoops returns the loop devices that lost their server and are still in use.
func (s *Server) deadLoops() []serve.Loop {
	s.exports.mu.Lock()
	defer s.exports.mu.Unlock()
	left := s.exports.dead[:0]
	for _, l := range s.exports.dead {
		if l.Dead() {
			left = append(left, l)
		}
	}
	s.exports.dead = left
	return append([]serve.Loop(nil), left...)
}
