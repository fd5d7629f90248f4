package mountopt

import (
	"errors"
	"strings"
)

// Parse reads lists of options, each as it follows a -o. Later ones win over
// earlier ones. The error is an [Error] that tells of the first bad value.
//
// Parse looks at each option by itself: call [Options.Check] when all have
// been gathered.
func Parse(lists ...string) (Options, error) {
	o := Options{Fsync: true}
	for _, list := range lists {
		if err := o.Add(list); err != nil {
			return Options{}, err
		}
	}
	return o, nil
}

// Add reads one more list of options into o.
func (o *Options) Add(list string) error {
	for _, opt := range splitOptions(list) {
		if err := o.set(opt); err != nil {
			return err
		}
	}
	return nil
}

// set applies one option as it stands between two commas.
func (o *Options) set(opt string) error {
	name, value, hasValue := strings.Cut(opt, "=")
	if s, ok := byName[name]; ok && (!hasValue || s.takes != nothing) {
		return s.apply(o, value, hasValue)
	}
	if isForeign(name) {
		return nil
	}
	o.Unknown = append(o.Unknown, opt)
	return nil
}

func (s *spec) apply(o *Options, value string, hasValue bool) error {
	fail := func(cause string) error {
		return &Error{Option: s.Name, Value: value, Cause: cause, Accepts: s.Accepts}
	}
	if !hasValue && s.takes == always {
		return fail("the value is missing")
	}
	if err := s.set(o, value); err != nil {
		if full := (*Error)(nil); errors.As(err, &full) {
			return err
		}
		return fail(err.Error())
	}
	return nil
}

// splitOptions cuts at the commas that are neither escaped nor inside of the
// quotes of a context option, and drops empty options. Escapes stay in.
func splitOptions(list string) []string {
	var opts []string
	start, quoted := 0, false
	flush := func(end int) {
		if end > start {
			opts = append(opts, list[start:end])
		}
		start = end + 1
	}
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\':
			i++
		case list[i] == '"' && (quoted || isQuotable(list[start:i])):
			quoted = !quoted
		case list[i] == ',' && !quoted:
			flush(i)
		}
	}
	flush(len(list))
	return opts
}

// isQuotable reports whether a quote after prefix opens a quoted value.
// Elsewhere quotes are part of the name of a directory.
func isQuotable(prefix string) bool {
	switch prefix {
	case "context=", "fscontext=", "defcontext=", "rootcontext=":
		return true
	}
	return false
}

// unescape resolves the escapes of a single value.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		c, width := unescapeOne(s[i+1:])
		b.WriteByte(c)
		s = s[i+1+width:]
	}
}

// unescapeOne returns the byte that stands for what follows a backslash, and
// how much of it belongs to the escape. A backslash at the very end stands for
// itself.
func unescapeOne(s string) (c byte, width int) {
	if s == "" {
		return '\\', 0
	}
	if c, ok := octal(s); ok {
		return c, 3
	}
	return s[0], 1
}

// octal reads three octal digits that make a byte.
func octal(s string) (byte, bool) {
	if len(s) < 3 || s[0] < '0' || s[0] > '3' || !isOctal(s[1]) || !isOctal(s[2]) {
		return 0, false
	}
	return (s[0]-'0')<<6 | (s[1]-'0')<<3 | (s[2] - '0'), true
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// escape is the inverse of unescape that kernel overlayfs understands too: it
// protects backslashes, commas and colons.
func escape(s string) string { return escaper.Replace(s) }

var escaper = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)
