package blockpool

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/laminafs/lamina/blockpool/internal/btree"
	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/raid"
)

// A dump is lines of a word and attributes:
//
//	lamina-dump version=1
//	pool guid=… txg=…
//	config … · state … · device … · chunk …
//	value bucket=… key=… data=…         what has no line of its own
//	leaf id=… birth=… items=n           a node, children before their parents,
//	record n=… at=… size=… sum=…        with n lines for its items
//	shared n=… at=… size=… sum=…        the same of a record that comes again:
//	again n=… at=…                      as the shared one at that address
//	item key=… value=…                  an item of a dataset
//	inner id=… level=… birth=… items=n
//	child id=… key=…
//	volume … root=…                     behind the nodes of its tree
//	dead id=… nodes=…                   what is left of a destroyed tree
//	end lines=… sum=…                   of lines before, and their xxhash64
//
// A node that several trees have is there once. An attribute that is zero is left
// out; one that the reader does not know is an error, so a new one is a new
// version. Version 2 has datasets and properties; a pool without them is dumped in
// version 1.
const dumpVersion = 2

// maxDumpLine is how long a line of a dump may be, in bytes.
const maxDumpLine = 4 << 20

// An attr is an attribute of a line, bound to where its value is kept.
type attr struct {
	key   string
	text  func() string // "" leaves it out
	parse func(string) error
}

// appendLine adds a line to b.
func appendLine(b []byte, word string, attrs []attr) []byte {
	b = append(b, word...)
	for _, a := range attrs {
		if text := a.text(); text != "" {
			b = append(append(append(append(b, ' '), a.key...), '='), text...)
		}
	}
	return append(b, '\n')
}

// parseAttrs sets the attributes that a line has.
func parseAttrs(line string, attrs []attr) error {
	seen := uint64(0)
	for line != "" {
		key, rest, ok := strings.Cut(line, "=")
		if !ok {
			return damagedf("%.40q is no attribute", line)
		}
		var text string
		if strings.HasPrefix(rest, `"`) {
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return damagedf("attribute %.40s: a text that does not end", key)
			}
			text, rest = quoted, rest[len(quoted):]
		} else if i := strings.IndexByte(rest, ' '); i >= 0 {
			text, rest = rest[:i], rest[i:]
		} else {
			text, rest = rest, ""
		}
		if rest != "" && (rest[0] != ' ' || len(rest) == 1) {
			return damagedf("attribute %.40s: no space behind it", key)
		}
		line = strings.TrimPrefix(rest, " ")
		if err := setAttr(attrs, key, text, &seen); err != nil {
			return err
		}
	}
	return nil
}

func setAttr(attrs []attr, key, text string, seen *uint64) error {
	for i, a := range attrs {
		if a.key != key {
			continue
		}
		if *seen>>i&1 != 0 {
			return damagedf("attribute %s comes twice", key)
		}
		*seen |= 1 << i
		if err := a.parse(text); err != nil {
			return fmt.Errorf("attribute %s: %.40q: %v: %w", key, text, err, ErrDamaged)
		}
		return nil
	}
	return damagedf("attribute %.40q is not known", key)
}

// num is a number from zero up.
func num[T ~uint8 | ~uint32 | ~uint64 | ~int | ~int64](key string, p *T) attr {
	return attr{key, func() string {
		if *p == 0 {
			return ""
		}
		return strconv.FormatUint(uint64(*p), 10)
	}, func(s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		*p = T(n)
		if err == nil && (uint64(*p) != n || *p < 0) {
			err = strconv.ErrRange
		}
		return err
	}}
}

// str is a text.
func str(key string, p *string) attr {
	return attr{key, func() string {
		if *p == "" {
			return ""
		}
		return strconv.Quote(*p)
	}, func(s string) (err error) {
		*p, err = strconv.Unquote(s)
		return err
	}}
}

// word is one of a few words, or a value that writes itself as one.
func word[T comparable](key string, p *T, text func(T) string, parse func(string) (T, error)) attr {
	return attr{key, func() string { return text(*p) }, func(s string) (err error) {
		*p, err = parse(s)
		return err
	}}
}

// sum64 is a number in hexadecimal digits.
func sum64(key string, p *uint64) attr {
	return word(key, p, func(n uint64) string { return fmt.Sprintf("%016x", n) }, func(s string) (uint64, error) { return strconv.ParseUint(s, 16, 64) })
}

func guidAttr(key string, p *GUID) attr {
	return word(key, p, GUID.String, func(s string) (g GUID, err error) { return g, g.UnmarshalText([]byte(s)) })
}

func boolAttr(key string, p *bool) attr {
	return word(key, p, func(b bool) string {
		if b {
			return "yes"
		}
		return ""
	}, func(s string) (bool, error) {
		if s != "yes" {
			return false, ErrInvalid
		}
		return true, nil
	})
}

func timeAttr(key string, p *time.Time) attr {
	return word(key, p, func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }, func(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) })
}

// bytesAttr is bytes in hexadecimal digits.
func bytesAttr(key string, p *[]byte) attr {
	return attr{key, func() string { return hex.EncodeToString(*p) }, func(s string) (err error) {
		*p, err = hex.DecodeString(s)
		return err
	}}
}

// localAttr is what is stored of properties; of no dataset there is none.
func localAttr(key string, l *local) attr {
	return attr{key, func() string {
		if *l == nil {
			return ""
		}
		return hex.EncodeToString(l.pack())
	}, func(s string) error {
		b, err := hex.DecodeString(s)
		if err == nil {
			*l, err = unpackLocal(b)
		}
		return err
	}}
}

func profileAttr(key string, p *Profile) attr { return word(key, p, Profile.String, ParseProfile) }

func classAttr(key string, p *format.Class) attr {
	return word(key, p, format.Class.String, func(s string) (format.Class, error) {
		for c := format.Data; c <= format.Log; c++ {
			if c.String() == s {
				return c, nil
			}
		}
		return 0, ErrInvalid
	})
}

// contentAttr is what a tree holds; of a volume there is none.
func contentAttr(key string, p *content) attr {
	return word(key, p, func(c content) string {
		if c == contentObjects {
			return "objects"
		}
		return ""
	}, func(s string) (content, error) {
		if s != "objects" {
			return 0, ErrInvalid
		}
		return contentObjects, nil
	})
}

func compressionAttr(key string, p *Compression) attr {
	return word(key, p, func(c Compression) string {
		if c == CompressionOff {
			return ""
		}
		return c.String()
	}, ParseCompression)
}

func kindAttr(key string, p *Kind) attr {
	return word(key, p, Kind.String, func(s string) (Kind, error) {
		for k := KindVolume; k <= KindSnapshot; k++ {
			if k.String() == s {
				return k, nil
			}
		}
		return 0, ErrInvalid
	})
}

// columnsAttr is DEVICE:START, joined by commas, each with >DEVICE:START behind it
// if it is moving there.
func columnsAttr(key string, p *[]raid.Column) attr {
	return attr{key, func() string {
		var parts []string
		for _, c := range *p {
			part := fmt.Sprintf("%d:%d", c.Device, c.Start)
			if s := c.Shadow; s != nil {
				part += fmt.Sprintf(">%d:%d", s.Device, s.Start)
			}
			parts = append(parts, part)
		}
		return strings.Join(parts, ",")
	}, func(s string) error {
		place := func(s string) (p raid.Place, err error) {
			device, start, ok := strings.Cut(s, ":")
			id, err := strconv.ParseUint(device, 10, 32)
			if err != nil || !ok {
				return p, ErrInvalid
			}
			p.Device = raid.DeviceID(id)
			p.Start, err = strconv.ParseInt(start, 10, 64)
			return p, err
		}
		for part := range strings.SplitSeq(s, ",") {
			from, to, moving := strings.Cut(part, ">")
			at, err := place(from)
			if err != nil {
				return err
			}
			c := raid.Column{Device: at.Device, Start: at.Start}
			if moving {
				if at, err = place(to); err != nil {
					return err
				}
				c.Shadow = &at
			}
			*p = append(*p, c)
		}
		return nil
	}}
}

func nodesAttr(key string, p *[]btree.NodeID) attr {
	return attr{key, func() string {
		var parts []string
		for _, id := range *p {
			parts = append(parts, strconv.FormatUint(uint64(id), 10))
		}
		return strings.Join(parts, ",")
	}, func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			id, err := strconv.ParseUint(part, 10, 48)
			if err != nil {
				return err
			}
			*p = append(*p, btree.NodeID(id))
		}
		return nil
	}}
}

func configAttrs(c *Config) []attr {
	return []attr{
		str("name", &c.Name), profileAttr("data", &c.DataProfile), profileAttr("metadata", &c.MetadataProfile),
		num("record-size", &c.RecordSize), num("chunk-size", &c.ChunkSize), num("metadata-size", &c.MetadataSize),
		word("when-full", &c.WhenFull, FullPolicy.String, ParseFullPolicy),
		word("queue-timeout", &c.QueueTimeout, time.Duration.String, time.ParseDuration),
		num("low-water", &c.LowWater), num("min-free", &c.MinFree), str("hook", &c.Hook), boolAttr("discard", &c.Discard),
		boolAttr("datasets", &c.datasets), boolAttr("converted", &c.converted),
	}
}

func stateAttrs(s *state) []attr {
	return []attr{
		num("address", &s.nextAddr), num("node", &s.nextNode), num("volume", &s.nextEntry),
		num("device", &s.nextDevice), num("chunk", &s.nextChunk), num("dead", &s.nextDead),
	}
}

func deviceAttrs(d *deviceState) []attr {
	return []attr{
		num("id", &d.id), guidAttr("guid", &d.guid), str("path", &d.path), num("size", &d.size),
		num("away", &d.away), timeAttr("added", &d.added), boolAttr("leaving", &d.leaving), num("heir-of", &d.heirOf),
	}
}

func chunkAttrs(c *raid.Chunk) []attr {
	return []attr{
		num("id", &c.ID), num("base", &c.Base), num("sectors", &c.Sectors),
		classAttr("class", &c.Class), profileAttr("profile", &c.Profile), columnsAttr("columns", &c.Columns),
	}
}

func entryAttrs(e *entry) []attr {
	return []attr{
		num("id", &e.id), guidAttr("guid", &e.guid), str("name", &e.name), kindAttr("kind", &e.kind),
		num("origin", &e.origin), num("root", &e.root), num("size", &e.size), num("record-size", &e.recordSize),
		num("referenced", &e.referenced), timeAttr("created", &e.created),
		num("created-txg", &e.createdTxg), num("written-txg", &e.writtenTxg),
		num("quota", &e.quota), num("refquota", &e.refquota), num("reservation", &e.reservation),
		num("used", &e.used), bytesAttr("receiving", &e.receiving),
		contentAttr("content", &e.content), num("objects", &e.objects), compressionAttr("compression", &e.compression),
		localAttr("props", &e.props),
	}
}

// A dumpItem is an item of a node.
type dumpItem struct {
	n     uint64 // of a record
	rec   format.Record
	child btree.NodeID
	key   []byte // of a child, or of an item of a dataset
	value []byte // of an item
}

// recordAttrs begins with those of a record that was there before.
func recordAttrs(i *dumpItem) []attr {
	return []attr{
		num("n", &i.n), num("at", &i.rec.Addr), num("size", &i.rec.Size), num("codec", &i.rec.Codec),
		sum64("sum", &i.rec.Sum), num("birth", &i.rec.Birth), num("owner", &i.rec.Owner),
	}
}

func againAttrs(i *dumpItem) []attr { return recordAttrs(i)[:2] }

func itemAttrs(i *dumpItem) []attr {
	return []attr{bytesAttr("key", &i.key), bytesAttr("value", &i.value)}
}

func childAttrs(i *dumpItem) []attr { return []attr{num("id", &i.child), bytesAttr("key", &i.key)} }

// A dumpNode is the line of a node.
type dumpNode struct {
	id           btree.NodeID
	level, items int
	birth        uint64
}

func nodeAttrs(n *dumpNode) []attr {
	return []attr{num("id", &n.id), num("level", &n.level), num("birth", &n.birth), num("items", &n.items)}
}

// A dumpDead is what is left of a destroyed tree.
type dumpDead struct {
	id    uint64
	nodes []btree.NodeID
}

func deadAttrs(d *dumpDead) []attr { return []attr{num("id", &d.id), nodesAttr("nodes", &d.nodes)} }

// A dumpValue is an entry of the metadata as it is.
type dumpValue struct {
	bucket    string
	key, data []byte
}

func valueAttrs(v *dumpValue) []attr {
	return []attr{str("bucket", &v.bucket), bytesAttr("key", &v.key), bytesAttr("data", &v.data)}
}

// A dumpPool is the line that says what the dump is of.
type dumpPool struct {
	guid GUID
	txg  uint64
}

func poolAttrs(p *dumpPool) []attr { return []attr{guidAttr("guid", &p.guid), num("txg", &p.txg)} }

// A dumpEnd is the last line.
type dumpEnd struct{ lines, sum uint64 }

func endAttrs(e *dumpEnd) []attr { return []attr{num("lines", &e.lines), sum64("sum", &e.sum)} }
