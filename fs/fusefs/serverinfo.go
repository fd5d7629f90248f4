package fusefs

import (
	"fmt"
	"strconv"
)

// Counters returns what the server has done since it was mounted.
func (s *Server) Counters() Counters {
	c := Counters{
		Requests:     map[string]uint64{},
		Errors:       s.raw.count.errors.Load(),
		BytesRead:    s.raw.count.read.Load(),
		BytesWritten: s.raw.count.written.Load(),
		CopyUps:      s.union.Stats().CopyUps.Load(),
		CopyUpBytes:  s.union.Stats().CopyUpBytes.Load(),
		Nodes:        uint64(s.union.Nodes()),
	}
	c.Descriptors = uint64(s.union.Handles())
	bytes, inodes := s.union.Usage()
	c.UpperBytes, c.UpperInodes = uint64(bytes), uint64(inodes)
	for i := range s.raw.count.ops {
		if n := s.raw.count.ops[i].Load(); n > 0 {
			c.Requests[opNames[i]] = n
		}
	}
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
	opts := map[string]string{
		"redirect_dir": onOff(u.Redirect),
		"metacopy":     onOff(u.Metacopy),
		"index":        onOff(u.Index),
		"volatile":     onOff(u.Volatile),
		"xattr_prefix": string(u.Prefix),
		"format":       u.Whiteouts.String(),
		"read_only":    onOff(s.union.ReadOnly()),
		"writeback":    onOff(s.writeback()),
		"passthrough":  onOff(s.raw.opens != nil && s.raw.opens.server != nil),
	}
	if u.Size > 0 {
		opts["size"] = strconv.FormatInt(u.Size, 10)
	}
	if u.Inodes > 0 {
		opts["inodes"] = strconv.FormatInt(u.Inodes, 10)
	}
	opts["timeout"] = fmt.Sprint(s.raw.timeout.Seconds())
	return opts
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
