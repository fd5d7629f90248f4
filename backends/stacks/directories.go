package stacks

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/laminafs/lamina/fs/fusefs"
	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/override"
	"github.com/laminafs/lamina/fs/mountopt"
)

func isDirectory(text string) bool {
	st, err := os.Stat(text)
	return err == nil && st.IsDir()
}

func openDirectory(text string, _ *Options) (*inspect.Stack, error) {
	l := hostLayer(text, 0)
	d, err := l.Open() // a mistyped name should fail here
	if err != nil {
		return nil, err
	}
	d.Close()
	return &inspect.Stack{Name: text, Layers: []inspect.Layer{l}}, nil
}

func hostLayer(path string, xattrPermissions int) inspect.Layer {
	view := ""
	if xattrPermissions != 0 {
		view = fmt.Sprintf("xattr_permissions=%d", xattrPermissions)
	}
	return inspect.Layer{Name: path, View: view, Open: func() (layer.Dir, error) {
		d, err := layer.OpenHost(path)
		if err != nil {
			return nil, err
		}
		switch xattrPermissions {
		case 1:
			return override.Wrap(d, override.Privileged), nil
		case 2:
			return override.Wrap(d, override.Containers), nil
		}
		return d, nil
	}}
}

func isMountOptions(text string) bool {
	for _, name := range []string{"lowerdir", "lowerdir+", "upperdir"} {
		if strings.HasPrefix(text, name+"=") || strings.Contains(text, ","+name+"=") {
			return true
		}
	}
	return false
}

func openMountOptions(text string, _ *Options) (*inspect.Stack, error) {
	o, err := mountopt.Parse(text)
	if err != nil {
		return nil, err
	}
	return FromOptions(text, &o), nil
}

// FromOptions returns the stack that a mount with the options would show.
// Nothing is opened yet.
func FromOptions(name string, o *mountopt.Options) *inspect.Stack {
	s := &inspect.Stack{Name: name, NoFollow: o.RedirectDir == mountopt.RedirectNoFollow}
	if o.Upper != "" {
		l := hostLayer(o.Upper, o.XattrPermissions)
		l.Upper = true
		s.Layers = append(s.Layers, l)
	}
	for _, path := range o.Lower {
		s.Layers = append(s.Layers, hostLayer(path, o.XattrPermissions))
	}
	for _, path := range o.DataOnly {
		s.DataOnly = append(s.DataOnly, hostLayer(path, o.XattrPermissions))
	}
	return s
}

// mountAt returns the topmost mount on a path, nil if there is none.
func mountAt(path string) *mountinfo.Info {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(abs))
	if err != nil || len(mounts) == 0 {
		return nil
	}
	all, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != abs, false })
	if err != nil || len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

func isMount(text string) bool {
	m := mountAt(text)
	return m != nil && (m.FSType == "overlay" || strings.HasPrefix(m.FSType, "fuse.lamina") || m.FSType == "fuse.fuse-overlayfs")
}

// openMount asks the server of a mount for its layers, or the mount table for
// those of kernel overlayfs.
func openMount(text string, _ *Options) (*inspect.Stack, error) {
	if m := mountAt(text); m != nil && m.FSType == "overlay" {
		o, err := mountopt.Parse(m.VFSOptions)
		if err != nil {
			return nil, fmt.Errorf("%s: the options of the mount: %w", text, err)
		}
		if len(o.Lower) == 0 {
			return nil, fmt.Errorf("%s: the mount table does not name the layers of this overlay", text)
		}
		for _, path := range append(o.Lower, o.Upper) {
			if path != "" && !filepath.IsAbs(path) {
				return nil, fmt.Errorf("%s was mounted with the relative path %s, and from where the mount table does not say; name the layers: lowerdir=…", text, path)
			}
		}
		return FromOptions(text, &o), nil
	}
	c, err := fusefs.Dial(text)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	layers, err := c.Layers()
	if err != nil {
		return nil, err
	}
	options, err := c.Options()
	if err != nil {
		return nil, err
	}
	o := mountopt.Options{}
	if options["redirect_dir"] == "nofollow" {
		o.RedirectDir = mountopt.RedirectNoFollow
	}
	for _, l := range layers {
		switch l.Role {
		case fusefs.RoleUpper:
			o.Upper = l.Path
		case fusefs.RoleLower:
			o.Lower = append(o.Lower, l.Path)
		case fusefs.RoleDataOnly:
			o.DataOnly = append(o.DataOnly, l.Path)
		}
	}
	if len(o.Lower) == 0 && o.Upper == "" {
		return nil, fmt.Errorf("%s is mounted as %s, which has no layers", text, c.Info.Type)
	}
	return FromOptions(text, &o), nil
}
