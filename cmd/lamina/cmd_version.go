package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker: -X main.release=v1.2.3.
var release string

// version returns the release, or the version that the module was installed as.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: `  lamina version --json`,
		Args:    args(0, 0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if asJSON {
				return printJSON(out, map[string]string{
					"version": version(), "commit": commit(), "go": runtime.Version(),
					"platform": runtime.GOOS + "/" + runtime.GOARCH, "fuse_overlayfs": compatVersion,
				})
			}
			_, err := fmt.Fprintf(out, "lamina version %s\ncommit %s, %s, %s/%s\noptions of fuse-overlayfs %s\n",
				version(), commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH, compatVersion)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// commit names the source that the program was built from.
func commit() string {
	revision, modified := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = "+changes"
			}
		}
	}
	return revision + modified
}
