package mountopt

import (
	"errors"
	"strings"
)

// The functions below make the set function of a [spec]: they parse a value
// and store it in the field that the given function points to.

func pathname(field func(*Options) *string) func(*Options, string) error {
	return store(field, parsePath)
}

func flag(field func(*Options) *Toggle) func(*Options, string) error {
	return store(field, parseToggle)
}

func boolean(field func(*Options) *bool) func(*Options, string) error {
	return store(field, parseBool)
}

func number(field func(*Options) *uint32) func(*Options, string) error {
	return store(field, parseUint32)
}

func size(field func(*Options) *uint64) func(*Options, string) error {
	return store(field, parseSize)
}

func id(field func(*Options) **uint32) func(*Options, string) error {
	return store(field, parseID)
}

func idMap(field func(*Options) *[]IDMap) func(*Options, string) error {
	return store(field, parseIDMap)
}

func word[T ~string](field func(*Options) *T, words ...T) func(*Options, string) error {
	return store(field, func(v string) (T, error) { return parseWord(v, words...) })
}

func text(field func(*Options) *string) func(*Options, string) error {
	return store(field, func(v string) (string, error) {
		if v = unescape(v); v == "" || strings.IndexByte(v, 0) >= 0 {
			return "", errors.New("not a name")
		}
		return v, nil
	})
}

func constant[T any](field func(*Options) *T, value T) func(*Options, string) error {
	return func(o *Options, _ string) error {
		*field(o) = value
		return nil
	}
}

func propagation(kind string) func(*Options, string) error {
	return constant(func(o *Options) *string { return &o.Propagation }, kind)
}

func store[T any](field func(*Options) *T, parse func(string) (T, error)) func(*Options, string) error {
	return func(o *Options, value string) error {
		v, err := parse(value)
		if err != nil {
			return err
		}
		*field(o) = v
		return nil
	}
}

// setLowers replaces all lowers, those of lowerdir+ and datadir+ included, as
// the kernel does.
func setLowers(o *Options, value string) error {
	lower, dataOnly, err := parseLowers(value)
	if err != nil {
		return err
	}
	o.Lower, o.DataOnly = lower, dataOnly
	return nil
}

func addLower(o *Options, value string) error {
	dir, err := parsePath(value)
	if err != nil {
		return err
	}
	if len(o.DataOnly) > 0 {
		return errors.New("a regular lower cannot follow a data-only one; give all lowerdir+ before the first datadir+")
	}
	o.Lower = append(o.Lower, dir)
	return nil
}

func addDataOnly(o *Options, value string) error {
	dir, err := parsePath(value)
	if err != nil {
		return err
	}
	o.DataOnly = append(o.DataOnly, dir)
	return nil
}

func setContext(o *Options, value string) error {
	value = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
	if value = unescape(value); value == "" || strings.ContainsAny(value, "\"\\\x00") {
		return errors.New("not a label")
	}
	o.Context = value
	return nil
}

func setXattrPermissions(o *Options, value string) error {
	n, err := parseUint32(value)
	if err != nil || n > 2 {
		return errors.New("no such value")
	}
	o.XattrPermissions = int(n)
	return nil
}

func setFormat(o *Options, value string) error {
	if value == "auto" {
		o.Format = FormatAuto
		return nil
	}
	f, err := parseWord(value, FormatOverlay, FormatOverlayUser, FormatXattr, FormatAufs)
	if err != nil {
		return err
	}
	o.Format = f
	return nil
}

func setPassthrough(o *Options, value string) error {
	if value == "auto" {
		o.Passthrough = PassthroughAuto
		return nil
	}
	on, err := parseToggle(value)
	if err != nil || value == "" {
		return errors.New("no such value")
	}
	o.Passthrough = Passthrough(on)
	return nil
}

func setWriteback(o *Options, value string) error {
	on, err := parseBool(value)
	if err != nil {
		return err
	}
	o.Writeback = &on
	return nil
}

func setTimeout(o *Options, value string) error {
	s, err := parseSeconds(value)
	if err != nil {
		return err
	}
	o.Timeout = s
	return nil
}

func refusePlugins(*Options, string) error {
	return errors.New("layer plugins are code loaded into the server; mount the layers they would bring and name those directories in lowerdir")
}
