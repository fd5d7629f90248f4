package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/laminafs/lamina/fs/mountopt"
)

// The manual is made from the commands themselves, in the macros of man(7).
// cobra/doc would do it too, but brings a Markdown parser, a Markdown-to-roff
// converter and YAML into the binary, and cannot list mount options.

// manName is the name of a command's page: "lamina-branch-add".
func manName(cmd *cobra.Command) string {
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-")
}

// manPage returns the page of one command.
func manPage(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	name := manName(cmd)
	fmt.Fprintf(&b, ".TH %s 1 \"\" %s \"lamina manual\"\n", roffQuote(strings.ToUpper(name)), roffQuote("lamina "+version()))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(name), roff(cmd.Short))
	synopsis := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		synopsis += " VERB"
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(synopsis))
	b.WriteString(".SH DESCRIPTION\n")
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	for i, paragraph := range strings.Split(long, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(paragraph) + "\n")
	}
	manFlags(&b, cmd)
	switch {
	case !cmd.HasParent():
		manStatuses(&b)
		manEnvironment(&b)
	case cmd.Name() == "mount":
		manOptions(&b)
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	manSeeAlso(&b, cmd)
	return b.Bytes()
}

func manFlags(b *bytes.Buffer, cmd *cobra.Command) {
	if !cmd.HasAvailableLocalFlags() {
		return
	}
	b.WriteString(".SH OPTIONS\n")
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		names := "--" + f.Name
		if f.Shorthand != "" {
			names = "-" + f.Shorthand + ", " + names
		}
		value, help := pflag.UnquoteUsage(f)
		if value != "" {
			names += " " + value
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(names), roff(help))
	})
}

func manOptions(b *bytes.Buffer) {
	b.WriteString(".SH MOUNT OPTIONS\nThe values of\n.BR \\-o .\n")
	for _, d := range mountopt.Docs() {
		name, text := d.Name, d.Help
		if d.Accepts != "" {
			name, text = d.Name+"=…", d.Help+". Accepted: "+d.Accepts
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s.\n", roff(name), roff(strings.ToUpper(text[:1])+text[1:]))
	}
	b.WriteString(".PP\n" + roff(`A backslash takes the meaning from a comma or colon that follows it. Options that
only other programs read, such as noauto, x-systemd.automount or _netdev, are
skipped.`) + "\n")
}

func manStatuses(b *bytes.Buffer) {
	b.WriteString(".SH EXIT STATUS\n")
	for _, s := range []struct {
		status int
		text   string
	}{
		{exitOK, "Done."},
		{exitFailure, "It failed; the message names the object, the cause and what to do."},
		{exitUsage, "The command line or a mount option was wrong; nothing was done."},
		{exitMissing, "doctor: this user cannot mount here; the report says what is missing."},
	} {
		fmt.Fprintf(b, ".TP\n.B %d\n%s\n", s.status, roff(s.text))
	}
	b.WriteString(".PP\n" + roff(`Called as fuse-overlayfs it is 0 or 1, and as a helper of mount(8) one of the
statuses listed there.`) + "\n")
}

func manEnvironment(b *bytes.Buffer) {
	b.WriteString(".SH ENVIRONMENT\n")
	for _, v := range []struct{ name, text string }{
		{"XDG_RUNTIME_DIR", "The control sockets of mounts lie in its directory lamina; those of root in /run/lamina."},
		{"LAMINA_RUNTIME_DIR", "Replaces that directory."},
		{"XDG_DATA_HOME", "Pools that have a name lie in its directory lamina/pools; those of root in /var/lib/lamina/pools."},
		{"LAMINA_POOL_ROOT", "Replaces that directory, as --root does."},
		{"LAMINA_POOL_IDLE", "How long the server of a pool waits for something to do before it ends, such as 5m; 30s unless set, and 0 is for ever."},
	} {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", v.name, roff(v.text))
	}
}

func manSeeAlso(b *bytes.Buffer, cmd *cobra.Command) {
	var pages []string
	if cmd.HasParent() {
		pages = append(pages, manName(cmd.Parent()))
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			pages = append(pages, manName(sub))
		}
	}
	b.WriteString(".SH SEE ALSO\n")
	for _, page := range pages {
		fmt.Fprintf(b, ".BR %s (1),\n", roff(page))
	}
	b.WriteString(".BR mount (8),\n.BR fusermount3 (1)\n")
}

// roff protects text from being read as a request or an escape.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func roffQuote(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }
