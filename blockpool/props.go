package blockpool

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/laminafs/lamina/blockpool/internal/format"
	"github.com/laminafs/lamina/blockpool/internal/meta"
)

// local are the properties that somebody has set on an entry, or on the pool as a
// whole, by name. It is replaced, never changed.
type local map[string]string

// Bounds of properties of users, as zfs has them, and of all that one entry has.
const (
	maxPropertyName  = 256
	maxPropertyValue = 8192
	maxProperties    = 64 << 10 // bytes
)

const localVersion = 1

// Tags of a set of properties on disk: each name is followed by its value.
const (
	localName = iota + 1
	localValue
)

// pack returns what is stored of the properties, sorted by name.
func (l local) pack() []byte {
	f := format.NewFields(localVersion)
	for _, name := range slices.Sorted(maps.Keys(l)) {
		f.Bytes(localName, []byte(name))
		f.Bytes(localValue, []byte(l[name]))
	}
	return f
}

// unpackLocal is the inverse of pack.
func unpackLocal(b []byte) (local, error) {
	l := local{}
	name := ""
	err := format.ParseFields(b, localVersion, func(f format.Field) error {
		switch {
		case f.Tag == localName && name == "":
			if name = f.String(); checkStoredName(name) != nil {
				return checkStoredName(name)
			}
			return nil
		case f.Tag == localValue && name != "":
			if _, twice := l[name]; twice {
				return damagedf("%s is there twice", name)
			}
			if len(f.Bytes()) > maxPropertyValue {
				return damagedf("%s has a value of %d bytes", name, len(f.Bytes()))
			}
			l[name], name = f.String(), ""
			return nil
		default:
			return f.Unknown()
		}
	})
	switch {
	case err == nil && name != "":
		err = damagedf("%s has no value", name)
	case err == nil && len(b) > maxProperties:
		err = damagedf("%d bytes of properties", len(b))
	}
	if err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	return l, nil
}

// checkStoredName refuses what was never the name of a property. Which native ones
// there are is not asked: one that a later lamina knows is kept.
func checkStoredName(name string) error {
	if name == "" || len(name) > maxPropertyName || strings.ContainsFunc(name, func(r rune) bool { return !isPropertyRune(r) }) {
		return damagedf("%.300q is no name of a property", name)
	}
	return nil
}

// with returns the properties with some more, or other values of them.
func (l local) with(values map[string]string) local {
	l = l.without()
	maps.Copy(l, values)
	return l
}

// without returns the properties without some.
func (l local) without(names ...string) local {
	l = maps.Clone(l)
	if l == nil {
		l = local{}
	}
	for _, name := range names {
		delete(l, name)
	}
	return l
}

// checkSize refuses more than an entry may carry.
func (l local) checkSize() error {
	if n := len(l.pack()); n > maxProperties {
		return invalidf("%d bytes of properties in all: %d are the most", n, maxProperties)
	}
	return nil
}

func isPropertyRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(":+-._", r)
}

// isUserProperty reports whether a property is one that people make up. Theirs have
// a colon, so that no later version of lamina takes the name.
func isUserProperty(name string) bool { return strings.Contains(name, ":") }

// checkUserProperty accepts a name and a value as zfs does, except for values that
// would not stay on one line.
func checkUserProperty(name, value string) error {
	switch {
	case len(name) > maxPropertyName:
		return invalidf("the name of a property has %d bytes: %d are the most", len(name), maxPropertyName)
	case name[0] == '-' || strings.ContainsFunc(name, func(r rune) bool { return !isPropertyRune(r) }):
		return invalidf("%q is no name of a property: take lower-case letters, digits and :+-._ and begin with no -", name)
	case len(value) > maxPropertyValue:
		return invalidf("the value of %s has %d bytes: %d are the most", name, len(value), maxPropertyValue)
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return invalidf("the value of %s is no text of one line", name)
	}
	return nil
}

// keyPool is where the pool's own properties are, which all datasets inherit.
const keyPool = "pool"

// loadProperties reads the pool's own properties.
func (p *Pool) loadProperties(view *meta.View) error {
	b, err := view.Get(meta.Props, []byte(keyPool))
	if err != nil {
		return err
	}
	l := local{}
	if b != nil {
		if l, err = unpackLocal(b); err != nil {
			return fmt.Errorf("the pool's %w", err)
		}
	}
	p.props.Store(&l)
	return nil
}
