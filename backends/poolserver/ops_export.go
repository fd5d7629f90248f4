package poolserver

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// ExportList returns the exports.
var ExportList = Op[None, []ExportInfo]{name: "export.list", run: func(c *call, _ None) ([]ExportInfo, error) {
	return append([]ExportInfo{}, c.server.exportList()...), nil
}}

func (s *Server) exportList() (list []ExportInfo) {
	for _, e := range s.exports.all() {
		list = append(list, e.info())
	}
	return list
}

// Mount are the arguments of [ExportMount].
type Mount struct {
	// Target is the directory to mount on; empty: one of the server's own, which is
	// made if need be, and shared by all who ask for it.
	Target     string `json:"target,omitempty"`
	AllowOther bool   `json:"allow_other,omitempty"` // let root in where an ordinary user mounts
}

// ExportMount shows all volumes as files in a directory.
var ExportMount = Op[Mount, ExportInfo]{name: "export.mount", run: func(c *call, a Mount) (ExportInfo, error) {
	private := a.Target == ""
	if private {
		var err error
		if a.Target, err = runtimeTarget(c.pool.GUID()); err != nil {
			return ExportInfo{}, err
		}
		if e := c.server.exports.get(a.Target); e != nil {
			return e.info(), nil
		}
	}
	if err := c.server.mount(a.Target, private, a.AllowOther); err != nil {
		return ExportInfo{}, err
	}
	return c.exported(a.Target)
}}

// exported returns an export that was just made.
func (c *call) exported(target string) (ExportInfo, error) {
	if e := c.server.exports.get(target); e != nil {
		return e.info(), nil
	}
	return ExportInfo{}, fmt.Errorf("export to %s: it has ended already: %w", target, unix.ENOENT)
}

// Listen are the arguments of [ExportListen].
type Listen struct {
	Socket string `json:"socket"`
	Volume string `json:"volume,omitempty"` // the only one to serve; empty: all
}

// ExportListen serves volumes over NBD.
var ExportListen = Op[Listen, ExportInfo]{name: "export.listen", run: func(c *call, a Listen) (ExportInfo, error) {
	if err := c.server.listen(a.Socket, a.Volume); err != nil {
		return ExportInfo{}, err
	}
	return c.exported(a.Socket)
}}

// End are the arguments of [ExportEnd].
type End struct {
	Target string `json:"target"`          // of the export
	Force  bool   `json:"force,omitempty"` // also take it from who uses it
}

// ExportEnd ends an export.
var ExportEnd = Op[End, None]{name: "export.end", run: func(c *call, a End) (None, error) {
	e := c.server.exports.get(a.Target)
	if e == nil {
		var there []string
		for _, e := range c.server.exports.all() {
			there = append(there, e.target)
		}
		slices.Sort(there)
		return None{}, fmt.Errorf("unexport %s: the pool is not exported there: %w; it is to %q", a.Target, unix.ENOENT, there)
	}
	if err := e.busy(); err != nil && !a.Force {
		return None{}, fmt.Errorf("unexport %w", err)
	}
	return None{}, e.end(a.Force)
}}
