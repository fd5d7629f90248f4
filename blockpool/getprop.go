package blockpool

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Where the value of a property comes from.
const (
	SourceLocal     = "local"     // somebody has set it
	SourceInherited = "inherited" // somebody has set it on one above
	SourceDefault   = "default"
	SourceNone      = "-" // it is not for anybody to set
)

// A Property is one of a dataset, volume, snapshot or pool. Sizes are in bytes, times
// are seconds since 1970, and what is not known is "-".
type Property struct {
	Name   string `json:"property"`
	Value  string `json:"value"`
	Source string `json:"source"`         // local, inherited, default or -
	From   string `json:"from,omitempty"` // whose value is inherited; empty: the pool's
}

// lookup finds the values of properties: those that are committed, or those that a
// txg is about to have.
type lookup struct {
	p    *Pool
	find func(name string) *entry
	pool local
}

func (p *Pool) lookup() lookup {
	return lookup{p, func(name string) *entry {
		if v := p.catalogue.find(name); v != nil {
			return v.entry.Load()
		}
		return nil
	}, *p.props.Load()}
}

// value returns a property that can be set of the entry called name, which may be one
// that is not there yet; "" is the pool.
func (l lookup) value(name, property string) Property {
	s := specOf(property)
	if s != nil && s.atBirth != "" {
		if e := l.find(name); e != nil {
			return l.born(e, s)
		}
	}
	at := name
	for {
		set, there := l.localOf(at)[property]
		switch {
		case there && at == name:
			return Property{property, set, SourceLocal, ""}
		case there && property == "mountpoint" && set != "none":
			return Property{property, path.Join(set, strings.TrimPrefix(name, at)), SourceInherited, at}
		case there:
			return Property{property, set, SourceInherited, at}
		case at == "" && s == nil:
			return Property{property, "-", SourceNone, ""}
		case at == "" || s != nil && !s.inherited:
			return Property{property, l.p.defaultOf(s), SourceDefault, ""}
		}
		at = above(at)
	}
}

// born returns a property that an entry has kept since it was made.
func (l lookup) born(e *entry, s *propertySpec) Property {
	p := Property{s.name, strconv.FormatInt(e.recordSize, 10), SourceLocal, ""}
	if _, there := e.props[s.name]; there {
		return p
	}
	if up := l.value(above(e.name), s.name); up.Value == p.Value {
		p.Source, p.From = up.Source, up.From
		if up.Source == SourceLocal {
			p.Source, p.From = SourceInherited, above(e.name)
		}
	}
	return p
}

func (l lookup) localOf(name string) local {
	if name == "" {
		return l.pool
	}
	if e := l.find(name); e != nil {
		return e.props
	}
	return nil
}

// users returns the names of properties of users that the entry called name has or
// inherits.
func (l lookup) users(name string) []string {
	found := map[string]bool{}
	for at := name; ; at = above(at) {
		for property := range l.localOf(at) {
			if isUserProperty(property) {
				found[property] = true
			}
		}
		if at == "" {
			return slices.Sorted(maps.Keys(found))
		}
	}
}

// typeOf returns what an entry is; nil is the pool.
func typeOf(e *entry) bearer {
	switch {
	case e == nil:
		return onPool
	case e.kind == KindSnapshot:
		return onSnapshot
	case e.holdsFiles():
		return onFilesystem
	}
	return onVolume
}

// Properties returns properties of a dataset, volume or snapshot, or of the pool,
// whose name is "": those that are named, in that order, or all that it has. What is
// named and does not fit it has the value "-", as "zfs get" shows it. It fails with
// [ErrNotFound], and with [ErrInvalid] for a property that lamina does not know.
//
// The property used of a snapshot costs as much as [Pool.Usage].
func (p *Pool) Properties(ctx context.Context, name string, properties ...string) ([]Property, error) {
	l := p.lookup()
	e := l.find(name)
	if e == nil && name != "" {
		return nil, failed("properties of", name, ErrNotFound)
	}
	on := typeOf(e)
	if len(properties) == 0 {
		for _, s := range propertySpecs {
			if s.on&on != 0 {
				properties = append(properties, s.name)
			}
		}
		properties = append(properties, l.users(name)...)
	}
	var list []Property
	for _, property := range properties {
		s := specOf(property)
		switch {
		case isUserProperty(property):
			list = append(list, l.value(name, property))
		case s == nil:
			return nil, unknownProperty(property)
		case s.on&on == 0:
			list = append(list, Property{property, "-", SourceNone, ""})
		case s.limit != nil:
			list = append(list, limitOf(s, e))
		case s.check != nil:
			list = append(list, l.value(name, property))
		default:
			value, err := p.known(ctx, e, s.name)
			if err != nil {
				return nil, failed("properties of", name, err)
			}
			list = append(list, Property{property, value, SourceNone, ""})
		}
	}
	return list, nil
}

func limitOf(s *propertySpec, e *entry) Property {
	n := *s.limit(e)
	source := SourceLocal
	if n == 0 {
		source = SourceDefault
	}
	return Property{s.name, strconv.FormatInt(n, 10), source, ""}
}

// known returns a property that cannot be set; e is nil for the pool.
func (p *Pool) known(ctx context.Context, e *entry, property string) (string, error) {
	if e == nil {
		return p.knownOfPool(property), nil
	}
	number := func(n int64) (string, error) { return strconv.FormatInt(n, 10), nil }
	v := p.catalogue.get(e.id)
	if v == nil {
		return "", ErrNotFound
	}
	used, below := v.pending.usage()
	switch property {
	case "type":
		return typeOf(e).String(), nil
	case "creation":
		return number(e.created.Unix())
	case "used":
		if e.kind == KindSnapshot {
			u, err := p.Usage(ctx, e.name)
			return strconv.FormatInt(u.Exclusive, 10), err
		}
		return number(used)
	case "available":
		return number(v.pending.room(p.unpromisedBytes(v.entry.Load().recordSize)))
	case "referenced":
		return number(e.referenced)
	case "usedbychildren":
		return number(below)
	case "usedbydataset", "usedbysnapshots":
		if e.origin != 0 || e.used < e.referenced { // others have written part of what it holds
			return "-", nil
		}
		if property == "usedbydataset" {
			return number(e.referenced)
		}
		return number(e.used - e.referenced)
	case "objects":
		if e.holdsFiles() {
			return number(int64(e.objects))
		}
	case "volsize":
		return number(e.size)
	case "guid":
		return e.guid.String(), nil
	case "createtxg":
		return number(int64(e.createdTxg))
	case "origin":
		if o := p.catalogue.entry(e.origin); o != nil {
			return o.name, nil
		}
	case "clones":
		if names := p.catalogue.clonesOf(e.id); len(names) > 0 {
			return strings.Join(names, ","), nil
		}
	}
	return "-", nil
}

// knownOfPool is known for the pool.
func (p *Pool) knownOfPool(property string) string {
	switch property {
	case "type":
		return TypePool
	case "used", "usedbychildren":
		return strconv.FormatInt(p.usedBytes(), 10)
	case "available":
		return strconv.FormatInt(max(p.unpromisedBytes(p.Config().RecordSize), 0), 10)
	case "guid":
		return p.guid.String()
	}
	return "-"
}

// clonesOf returns the names of what was cloned from a snapshot.
func (c *catalogue) clonesOf(id uint64) (names []string) {
	for _, v := range c.all() {
		if e := v.entry.Load(); e.origin == id && e.kind == KindVolume {
			names = append(names, e.name)
		}
	}
	return names
}

// Children returns the names of what lies below a dataset or the pool, "", sorted, down
// to a depth; a negative one is all.
func (p *Pool) Children(name string, depth int) ([]string, error) {
	if name != "" && p.catalogue.find(name) == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	var names []string
	for _, v := range p.catalogue.all() {
		e := v.entry.Load()
		if e.receiving == nil && isBelow(e.name, name) && (depth < 0 || levels(e.name)-levels(name) <= depth) {
			names = append(names, e.name)
		}
	}
	return names, nil
}

// levels returns how deep a name lies below the pool.
func levels(name string) int {
	if name == "" {
		return 0
	}
	return 1 + strings.Count(name, "/") + strings.Count(name, "@")
}
