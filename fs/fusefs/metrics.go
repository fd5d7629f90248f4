package fusefs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Metrics writes the counters of a mount in the text exposition format of
// Prometheus, version 0.0.4.
func Metrics(info Info, c Counters) string {
	var b strings.Builder
	label := fmt.Sprintf(`mount="%s"`, labelValue(info.Target))
	metric := func(name, kind, help string, n uint64) {
		fmt.Fprintf(&b, "# HELP lamina_%s %s\n# TYPE lamina_%s %s\nlamina_%s{%s} %d\n", name, help, name, kind, name, label, n)
	}
	b.WriteString("# HELP lamina_requests_total Requests of the kernel, by FUSE operation.\n# TYPE lamina_requests_total counter\n")
	for _, op := range slices.Sorted(maps.Keys(c.Requests)) {
		fmt.Fprintf(&b, "lamina_requests_total{%s,op=\"%s\"} %d\n", label, labelValue(strings.ToLower(op)), c.Requests[op])
	}
	metric("errors_total", "counter", "Requests answered by an error, ENOENT and ENODATA aside.", c.Errors)
	metric("read_bytes_total", "counter", "Bytes read through the server.", c.BytesRead)
	metric("written_bytes_total", "counter", "Bytes written through the server.", c.BytesWritten)
	metric("copy_ups_total", "counter", "Files copied from a lower layer to the upper.", c.CopyUps)
	metric("copy_up_bytes_total", "counter", "Bytes copied for that.", c.CopyUpBytes)
	metric("nodes", "gauge", "Inodes that the kernel remembers.", c.Nodes)
	metric("open_files", "gauge", "Files that are open.", c.OpenFiles)
	metric("descriptors", "gauge", "Descriptors held on layers.", c.Descriptors)
	metric("upper_bytes", "gauge", "Bytes in the upper, counted under a limit only.", c.UpperBytes)
	metric("upper_inodes", "gauge", "Inodes in the upper, counted under a limit only.", c.UpperInodes)
	fmt.Fprintf(&b, "# HELP lamina_start_time_seconds When it was mounted, since the epoch.\n# TYPE lamina_start_time_seconds gauge\nlamina_start_time_seconds{%s} %d\n",
		label, info.Started.Unix())
	return b.String()
}

// labelValue escapes a label as the format wants it; it must be UTF-8.
func labelValue(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
}
