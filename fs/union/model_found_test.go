package union_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
	"github.com/laminafs/lamina/whiteout"
)

// A foundCase is a shrunk failure of the model test: what users lost.
type foundCase struct {
	lost   string
	conf   func(c *modelConfig) // beyond plainConfig
	upper  modelLayer
	lowers []modelLayer
	steps  []*step
}

func plainConfig() modelConfig {
	return modelConfig{
		opt:    union.Options{Prefix: whiteout.Trusted, Redirect: true, Index: true, Metacopy: true},
		styles: []union.WhiteoutStyle{union.WhiteoutDevice},
		every:  1,
	}
}

// lowFile, lowDir and the like are what these layers are made of.
func lowFile(path, text string) layerItem {
	return layerItem{path: path, typ: 'f', mode: 0o644, content: text, mtime: 1000}
}

func withXattr(it layerItem, name, value string) layerItem {
	it.xattrs = append(it.xattrs, [2]string{name, value})
	return it
}

func lowDir(path string) layerItem { return layerItem{path: path, typ: 'd', mode: 0o755, mtime: 1000} }

// seldomLooked leaves the tree unknown to the kernel.
func seldomLooked(c *modelConfig) { c.every = 1 << 30 }

// styleOne is the seed of a remount after which the second style is in use.
const styleOne = 4

var foundCases = []foundCase{
	{
		lost:   "inode numbers in listings of a directory that was impure in a layer below",
		lowers: []modelLayer{{lowFile("/e", "e"), lowDir("/c")}},
		steps: []*step{
			{verb: "rename", a: "/e", b: "/c/b"}, {verb: "freeze"},
			{verb: "setattr", a: "/c/b", flags: setMode, mode: 0o600}, {verb: "forget"}, {verb: "look"},
		},
	},
	{
		lost: "what was written through the descriptor of a file whose other name is removed",
		conf: seldomLooked,
		steps: []*step{
			{verb: "create", a: "/a", slot: -1}, {verb: "link", a: "/a", b: "/b"}, {verb: "remount"},
			{verb: "open", a: "/a"}, {verb: "unlink", a: "/a"}, {verb: "write", a: "@0", text: "new"}, {verb: "read", a: "/b"},
		},
	},
	{
		lost: "a file that was linked and forgotten, while its name is looked up again",
		conf: seldomLooked,
		steps: []*step{
			{verb: "create", a: "/a", slot: -1}, {verb: "link", a: "/a", b: "/b"},
			{verb: "forget"}, {verb: "stat", a: "/a"}, {verb: "stat", a: "/a", seed: 257},
		},
	},
	{
		lost:   "the capabilities of a program whose attributes had been copied up before its data",
		lowers: []modelLayer{{withXattr(lowFile("/ping", "ELF"), "security.capability", capabilityValue)}},
		steps: []*step{
			{verb: "setattr", a: "/ping", flags: setMode, mode: 0o4755}, {verb: "setxattr", a: "/ping", name: "security.capability", text: capabilityValue},
			{verb: "open", a: "/ping", flags: unix.O_WRONLY},
		},
	},
	{
		lost:   "with aufs marks, directories at names deleted under another format",
		conf:   func(c *modelConfig) { c.styles = []union.WhiteoutStyle{union.WhiteoutDevice, union.WhiteoutAufs} },
		lowers: []modelLayer{{lowFile("/a", "a"), lowFile("/b", "b"), lowDir("/c")}},
		steps: []*step{
			{verb: "unlink", a: "/a"}, {verb: "unlink", a: "/b"}, {verb: "remount", seed: styleOne},
			{verb: "mkdir", a: "/a", mode: 0o755}, {verb: "rename", a: "/c", b: "/b"}, {verb: "remount"},
		},
	},
	{
		lost:   "with aufs marks, the inode number in listings of a directory moved by redirect",
		conf:   func(c *modelConfig) { c.styles = []union.WhiteoutStyle{union.WhiteoutAufs} },
		lowers: []modelLayer{{lowDir("/a")}},
		steps:  []*step{{verb: "mkdir", a: "/b", mode: 0o755}, {verb: "rename", a: "/a", b: "/b/c"}, {verb: "remount"}, {verb: "look"}},
	},
	{
		lost:   "the other names of a device that was copied up",
		conf:   seldomLooked,
		lowers: []modelLayer{{lowDir("/x")}},
		steps: []*step{
			{verb: "mknod", a: "/a", mode: unix.S_IFIFO | 0o600, slot: -1}, {verb: "link", a: "/a", b: "/b"}, {verb: "freeze"},
			{verb: "setattr", a: "/a", flags: setMode, mode: 0o666}, {verb: "remount"}, {verb: "look"},
		},
	},
	{
		lost: "a file with several names when the directory of one was forgotten",
		conf: seldomLooked,
		steps: []*step{
			{verb: "mkdir", a: "/d", mode: 0o755}, {verb: "create", a: "/d/f", slot: -1}, {verb: "link", a: "/d/f", b: "/g"},
			{verb: "remount"}, {verb: "stat", a: "/d"}, {verb: "unlink", a: "/d/f/x"}, {verb: "open", a: "/g"}, {verb: "forget", a: "/"},
			{verb: "unlink", a: "/d/f", seed: 1},
			{verb: "setattr", a: "/g", flags: setMode, mode: 0o600},
		},
	},
	{
		lost:   "the whole mount, by changing the mode of an open file that had been removed",
		lowers: []modelLayer{{lowFile("/f", "f")}},
		steps:  []*step{{verb: "open", a: "/f"}, {verb: "unlink", a: "/f"}, {verb: "setattr", a: "@0", flags: setMode, mode: 0o600}},
	},
	{
		lost:   "renames to deleted names, on filesystems that know no flags for renaming",
		conf:   func(c *modelConfig) { c.mem.NoRenameFlags = true },
		lowers: []modelLayer{{lowFile("/f", "f"), lowFile("/g", "g"), lowDir("/d")}},
		steps: []*step{
			{verb: "unlink", a: "/f"}, {verb: "rename", a: "/d", b: "/f"}, {verb: "unlink", a: "/g"}, {verb: "rename", a: "/f", b: "/g"},
		},
	},
	{
		lost:   "the deletion of what a directory had held, by moving a file into the new one",
		conf:   func(c *modelConfig) { c.styles = []union.WhiteoutStyle{union.WhiteoutXattr} },
		lowers: []modelLayer{{lowDir("/d"), lowFile("/d/old", "old"), lowFile("/f", "f")}},
		steps: []*step{
			{verb: "unlink", a: "/d/old"}, {verb: "rmdir", a: "/d"}, {verb: "mkdir", a: "/d", mode: 0o755, slot: -1},
			{verb: "rename", a: "/f", b: "/d/f"}, {verb: "remount"},
		},
	},
	{
		lost: "the deletion of a file, by mounting with another kind of whiteout",
		conf: func(c *modelConfig) {
			c.styles = []union.WhiteoutStyle{union.WhiteoutXattr, union.WhiteoutDevice}
		},
		lowers: []modelLayer{{lowDir("/d"), lowFile("/d/a", "a"), lowDir("/d/dir"), lowDir("/e"), lowFile("/e/b", "b")}},
		steps: []*step{
			{verb: "unlink", a: "/e/b"}, {verb: "remount", seed: styleOne}, {verb: "rename", a: "/d/dir", b: "/e/b"},
			{verb: "remount", seed: styleOne}, {verb: "look"},
		},
	},
	{
		lost:   "the data of a file in a moved directory, in a directory that was made anew",
		lowers: []modelLayer{{lowDir("/a"), lowDir("/a/d"), lowFile("/a/d/f", "data"), lowDir("/new"), lowFile("/new/old", "old")}},
		steps: []*step{
			{verb: "unlink", a: "/new/old"}, {verb: "rmdir", a: "/new"}, {verb: "mkdir", a: "/new", mode: 0o755, slot: -1},
			{verb: "rename", a: "/a/d", b: "/new/d"}, {verb: "freeze"},
			{verb: "setattr", a: "/new/d/f", flags: setMode, mode: 0o600}, {verb: "remount"}, {verb: "read", a: "/new/d/f"},
		},
	},
	{
		lost:   "space: the work directory remembered how many names of removed files are gone",
		lowers: []modelLayer{{lowFile("/a", "a"), {path: "/b", typ: 'h', content: "/a"}}},
		steps:  []*step{{verb: "unlink", a: "/a"}, {verb: "unlink", a: "/b"}},
	},
	{
		lost:   "space: with aufs marks, the index kept copies of files whose last name is gone",
		conf:   func(c *modelConfig) { c.styles = []union.WhiteoutStyle{union.WhiteoutAufs} },
		lowers: []modelLayer{{lowFile("/a", "a"), {path: "/b", typ: 'h', content: "/a"}}},
		steps: []*step{
			{verb: "write", a: "/a", text: "b"}, {verb: "rename", a: "/b", b: "/c"}, {verb: "remount"},
			{verb: "unlink", a: "/a"}, {verb: "unlink", a: "/c"},
		},
	},
	{
		lost: "every change of a file with several names, where the upper takes no xattrs",
		conf: func(c *modelConfig) {
			c.mem.NoXattrs, c.opt.Redirect = true, false
			c.styles = []union.WhiteoutStyle{union.WhiteoutAufs}
		},
		lowers: []modelLayer{{lowFile("/a", "a"), {path: "/b", typ: 'h', content: "/a"}}},
		steps: []*step{
			{verb: "setattr", a: "/a", flags: setMode, mode: 0o600}, {verb: "write", a: "/b", text: "b"},
			{verb: "unlink", a: "/a"}, {verb: "unlink", a: "/b"}, // they part at the next mount
		},
	},
	{
		lost:   "the data of a file in a directory of one layer, whose attributes alone that layer has",
		lowers: []modelLayer{{lowFile("/f", "data")}},
		steps:  []*step{{verb: "mkdir", a: "/new", mode: 0o755, slot: -1}, {verb: "rename", a: "/f", b: "/new/f"}, {verb: "freeze"}},
	},
	{
		lost:   "the data of a file with several names, whose attributes two layers have copied up",
		conf:   seldomLooked,
		lowers: []modelLayer{{lowFile("/a", "data")}},
		steps: []*step{
			{verb: "setattr", a: "/a", flags: setMode, mode: 0o600}, {verb: "link", a: "/a", b: "/b"}, {verb: "freeze"},
			{verb: "setattr", a: "/a", flags: setMode, mode: 0o640}, {verb: "remount"}, {verb: "read", a: "/b"},
		},
	},
}

// TestWhatTheModelHasFound takes the steps of old failures again.
func TestWhatTheModelHasFound(t *testing.T) {
	for _, c := range foundCases {
		t.Run(c.lost, func(t *testing.T) {
			s := modelStack{conf: plainConfig(), upper: c.upper, lowers: c.lowers}
			if c.conf != nil {
				c.conf(&s.conf)
			}
			if failed := s.replay(c.steps); failed != "" {
				t.Error(failed)
			}
		})
	}
}
