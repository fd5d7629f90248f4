package fusefs

import (
	"maps"
	"strconv"
)

// Counters returns what the server has done since it was mounted.
func (s *Server) Counters() Counters {
	c := s.mount.Counters()
	c.CopyUps = s.union.Stats().CopyUps.Load()
	c.CopyUpBytes = s.union.Stats().CopyUpBytes.Load()
	c.Descriptors = uint64(s.union.Handles())
	bytes, inodes := s.union.Usage()
	c.UpperBytes, c.UpperInodes = uint64(bytes), uint64(inodes)
	return c
}

// Layers returns the layers from the top.
func (s *Server) Layers() []LayerInfo {
	var out []LayerInfo
	index := map[string]int{}
	for _, b := range s.union.Branches() {
		out = append(out, LayerInfo{Role: b.Role, Index: index[b.Role], Path: b.Name})
		index[b.Role]++
	}
	return out
}

// Options returns the options in force.
func (s *Server) Options() map[string]string {
	u := s.union.Options()
	opts := s.mount.Options()
	maps.Copy(opts, map[string]string{
		"redirect_dir": onOff(u.Redirect),
		"metacopy":     onOff(u.Metacopy),
		"index":        onOff(u.Index),
		"volatile":     onOff(u.Volatile),
		"xattr_prefix": string(u.Prefix),
		"format":       u.Whiteouts.String(),
		"read_only":    onOff(s.union.ReadOnly()),
		"passthrough":  onOff(s.opens != nil && s.opens.server != nil),
	})
	if u.Size > 0 {
		opts["size"] = strconv.FormatInt(u.Size, 10)
	}
	if u.Inodes > 0 {
		opts["inodes"] = strconv.FormatInt(u.Inodes, 10)
	}
	return opts
}
