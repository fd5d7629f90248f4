package blockpool

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The types of what has properties, as zfs calls them.
const (
	TypePool       = "pool"
	TypeFilesystem = "filesystem"
	TypeVolume     = "volume"
	TypeSnapshot   = "snapshot"
)

// A bearer is a set of types.
type bearer uint8

const (
	onPool bearer = 1 << iota
	onFilesystem
	onVolume
	onSnapshot

	onDataset = onFilesystem | onVolume
	onAll     = onPool | onDataset | onSnapshot
)

func (h bearer) String() string {
	for i, name := range []string{TypePool, TypeFilesystem, TypeVolume, TypeSnapshot} {
		if h == 1<<i {
			return name
		}
	}
	return fmt.Sprintf("bearer(%#x)", uint8(h))
}

// PropertyInfo tells of a property that lamina knows.
type PropertyInfo struct {
	Name      string `json:"name"`
	Values    string `json:"values"`         // what it may be, for people
	Editable  bool   `json:"editable"`       // it can be set
	Inherited bool   `json:"inherited"`      // datasets below have it too
	Unit      string `json:"unit,omitempty"` // of a number: bytes, count or seconds
	Help      string `json:"help"`
}

// A propertySpec is a line of the table of properties.
type propertySpec struct {
	name   string
	on     bearer
	values string
	help   string
	init   string // the default; of those that can be set

	check     func(string) (string, error) // returns how the value is kept; nil: it cannot be set
	inherited bool
	atBirth   string // why it cannot be changed later; empty: it can
	limit     func(*entry) *int64
}

// propertySpecs are the properties in the order in which they are shown.
var propertySpecs = []propertySpec{
	{name: "type", on: onAll, values: "pool | filesystem | volume | snapshot", help: "what it is"},
	{name: "creation", on: onAll &^ onPool, values: "time", help: "when it was made"},
	{name: "used", on: onAll, values: "size", help: "what it, its snapshots and all below it take; of a snapshot: what would come back if it were destroyed"},
	{name: "available", on: onAll &^ onSnapshot, values: "size", help: "what can still be written, within its own limits and those above it"},
	{name: "referenced", on: onAll &^ onPool, values: "size", help: "what it holds, shared or not"},
	{name: "usedbychildren", on: onAll &^ onSnapshot, values: "size", help: "what those below it count for, with what is reserved for them"},
	{name: "usedbydataset", on: onDataset, values: "size", help: "what it has written and still holds; not known of a clone"},
	{name: "usedbysnapshots", on: onDataset, values: "size", help: "what it has written and only snapshots and clones hold; not known of a clone"},
	{name: "objects", on: onFilesystem | onSnapshot, values: "number", help: "files, directories and everything else that has an inode"},
	{name: "origin", on: onDataset, values: "snapshot", help: "what it was cloned from"},
	{name: "clones", on: onSnapshot, values: "datasets", help: "what was cloned from it; none depends on it"},
	{name: "mounted", on: onFilesystem, values: "yes | no", help: "whether it is mounted"},
	{name: "volsize", on: onVolume, values: "size", help: "virtual size"},
	{name: "guid", on: onAll, values: "guid", help: "the same wherever it is sent"},
	{name: "createtxg", on: onAll &^ onPool, values: "number", help: "transaction group in which it was made"},

	{name: "quota", on: onDataset, values: "size | none", init: "0", help: "limit of used, so with snapshots and all below it", check: sizeOrNone,
		limit: func(e *entry) *int64 { return &e.quota }},
	{name: "refquota", on: onDataset, values: "size | none", init: "0", help: "limit of referenced", check: sizeOrNone,
		limit: func(e *entry) *int64 { return &e.refquota }},
	{name: "reservation", on: onDataset, values: "size | none", init: "0", help: "kept free for it and all below it", check: sizeOrNone,
		limit: func(e *entry) *int64 { return &e.reservation }},
	{name: "inodes", on: onFilesystem, values: "number | none", init: "0", help: "limit of objects; those below it have limits of their own", check: countOrNone},
	{name: "recordsize", on: onPool | onFilesystem, values: "4K to 128K", help: "unit in which space is taken, shared and checked", check: recordSizeValue, inherited: true,
		atBirth: "records keep the size that the dataset was made with: say it when you make one (-o recordsize=…), or set it on the pool for those that you make later"},
	{name: "compression", on: onPool | onFilesystem, values: "on | off | lz4 | zstd | zstd-1 to zstd-19", init: "on", help: "how what is written from now on is kept; on is lz4", check: compressionValue, inherited: true},
	{name: "checksum", on: onPool | onFilesystem, values: "on", init: "on", help: "xxh3 of every record, crc32c of all metadata", check: checksumValue, inherited: true},
	{name: "mountpoint", on: onPool | onFilesystem, values: "path | none", init: "none", help: "where it is mounted; below an inherited one, by name", check: mountpointValue, inherited: true},
	{name: "canmount", on: onFilesystem, values: "on | off | noauto", init: "on", help: "whether it can be mounted, and is with all others", check: oneOf("on", "off", "noauto")},
	{name: "readonly", on: onPool | onFilesystem, values: "on | off", init: "off", help: "mount it so that nothing can be changed", check: onOff, inherited: true},
	{name: "atime", on: onPool | onFilesystem, values: "on | off | relatime", init: "relatime", help: "whether reading a file moves its access time; on: each time that it is not read from the cache of the kernel", check: oneOf("on", "off", "relatime"), inherited: true},
	{name: "exec", on: onPool | onFilesystem, values: "on | off", init: "on", help: "whether programs can be run", check: onOff, inherited: true},
	{name: "setuid", on: onPool | onFilesystem, values: "on | off", init: "on", help: "whether set-user-ID bits count, where root mounts", check: onOff, inherited: true},
	{name: "devices", on: onPool | onFilesystem, values: "on | off", init: "on", help: "whether device nodes can be opened, where root mounts", check: onOff, inherited: true},
	{name: "snapdir", on: onPool | onFilesystem, values: "hidden | visible", init: "hidden", help: "whether listings show .lamina, where the snapshots are", check: oneOf("hidden", "visible"), inherited: true},
}

// KnownProperties returns the properties that lamina knows, in the order in which
// they are shown. People can make up others, whose names have a colon.
func KnownProperties() (list []PropertyInfo) {
	for _, s := range propertySpecs {
		unit := ""
		switch strings.Fields(s.values)[0] {
		case "size", "4K":
			unit = "bytes"
		case "number":
			unit = "count"
		case "time":
			unit = "seconds"
		}
		list = append(list, PropertyInfo{s.name, s.values, s.check != nil, s.inherited, unit, s.help})
	}
	return list
}

func specOf(name string) *propertySpec {
	for i := range propertySpecs {
		if propertySpecs[i].name == name {
			return &propertySpecs[i]
		}
	}
	return nil
}

// inPlaceOf says of properties that zfs has and lamina has not what there is instead.
var inPlaceOf = map[string]string{
	"refreservation": "reservation keeps space free",
	"dedup":          "snapshots and clones share, and so does cp --reflink",
	"copies":         "copies are the pool's: make it a mirror or raidz",
	"sync":           "fsync is always done",
	"encryption":     "put the pool on an encrypted device",
	"volblocksize":   "a volume's is set when it is made: lamina volume create --record-size",
	"relatime":       "say atime=relatime",
	"sharenfs":       "export the directory where it is mounted",
	"sharesmb":       "share the directory where it is mounted",
	"xattr":          "extended attributes are always there",
	"acltype":        "POSIX ACLs are always there",
	"overlay":        "a dataset is mounted over whatever is there",
}

// unknownProperty refuses a property that is none.
func unknownProperty(name string) error {
	if instead := inPlaceOf[name]; instead != "" {
		return invalidf("there is no property %s: %s", name, instead)
	}
	var near []string
	for _, s := range propertySpecs {
		if name != "" && (strings.HasPrefix(s.name, name) || strings.HasPrefix(name, s.name)) {
			near = append(near, s.name)
		}
	}
	if len(near) > 0 {
		return invalidf("there is no property %.80q; did you mean %s?", name, strings.Join(near, " or "))
	}
	return invalidf("there is no property %.80q: see lamina dataset get --help; one of your own has a colon in its name, such as com.example:%s", name, "note")
}

// checkProperty returns how a value is kept, or why it cannot be.
func checkProperty(name, value string, on bearer) (string, error) {
	if isUserProperty(name) {
		return value, checkUserProperty(name, value)
	}
	s := specOf(name)
	switch {
	case s == nil:
		return "", unknownProperty(name)
	case s.check == nil:
		return "", invalidf("%s cannot be set", name)
	case s.on&on == 0:
		return "", invalidf("a %v has no %s", on, name)
	}
	kept, err := s.check(value)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return kept, nil
}

// oneOf accepts words.
func oneOf(words ...string) func(string) (string, error) {
	return func(v string) (string, error) {
		if !slices.Contains(words, v) {
			return "", invalidf("%.80q; accepted: %s", v, strings.Join(words, ", "))
		}
		return v, nil
	}
}

var onOff = oneOf("on", "off")

func sizeOrNone(v string) (string, error) {
	if v == "none" {
		return "0", nil
	}
	n, err := ParseSize(v)
	if err == nil && n > maxVolumeSize {
		err = invalidf("%s is more than %s", v, FormatSize(maxVolumeSize))
	}
	return strconv.FormatInt(n, 10), err
}

func countOrNone(v string) (string, error) {
	if v == "none" {
		return "0", nil
	}
	n, err := ParseSize(v) // 10K files are as good a number as 10240
	if err == nil && n > math.MaxInt32 {
		err = invalidf("%s is more than a dataset can have, %d", v, MaxObject)
	}
	return strconv.FormatInt(n, 10), err
}

func recordSizeValue(v string) (string, error) {
	n, err := ParseSize(v)
	if err == nil {
		err = checkRecordSize(n)
	}
	return strconv.FormatInt(n, 10), err
}

func compressionValue(v string) (string, error) {
	_, err := ParseCompression(v)
	return v, err
}

func checksumValue(v string) (string, error) {
	switch v {
	case "on":
		return v, nil
	case "off":
		return "", invalidf("off: without a checksum a copy that has gone bad could not be told from a good one, so every record has one")
	}
	return "", invalidf("%.80q: every record has an xxh3 and no other; the one value is on", v)
}

func mountpointValue(v string) (string, error) {
	switch {
	case v == "none" || v == "legacy":
		return "none", nil
	case !path.IsAbs(v) || len(v) >= 4096 || strings.ContainsRune(v, 0):
		return "", invalidf("%.80q: take an absolute path, or none", v)
	}
	if err := checkUserProperty("x:", v); err != nil {
		return "", invalidf("%.80q is no text of one line", v)
	}
	return path.Clean(v), nil
}

// defaultOf returns the value of a property that nobody has set.
func (p *Pool) defaultOf(s *propertySpec) string {
	c := p.Config()
	switch {
	case s.name == "recordsize":
		return strconv.FormatInt(c.RecordSize, 10)
	case s.name == "compression" && c.RecordSize == DevicemapperRecordSize && c.MinFree == DevicemapperMinFree:
		return "off" // Docker's driver of that name keeps blocks as they are
	}
	return s.init
}
