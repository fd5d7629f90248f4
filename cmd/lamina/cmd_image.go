package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/oci"
	"github.com/laminafs/lamina/backends/poolserver"
	"github.com/laminafs/lamina/backends/store"
)

func newImage() *cobra.Command {
	return group("image", "Load, save and mount images", `An image is a stack of read-only layers with a name and a configuration. Layers that
several images have are there once. IMAGE is a name, with or without ":latest", or
the beginning of an id.
`+storeHelp, `  podman save app | lamina image load
  lamina image mount app /mnt/app
  lamina layer create --image app work && lamina layer mount work`,
		newImageLoad(), newImageSave(), newImageList(), newImageRm(), newImageHistory(), newImageMount(), newImageUmount(), newImageConvert())
}

// transfer shows a bar for work that goes layer by layer.
func transfer(what string) (tell func(layer string, done, total int64), end func()) {
	bar, end := newProgressBar(what)
	if bar == nil {
		return nil, end
	}
	return func(layer string, done, total int64) {
		layer = strings.TrimPrefix(strings.TrimPrefix(layer, "blobs/"), "sha256/")
		bar(poolserver.Progress{Text: layer[:min(12, len(layer))], Done: done, Total: total})
	}, end
}

func newImageLoad() *cobra.Command {
	var f storeFlags
	var o oci.LoadOptions
	var most byteSize
	cmd := &cobra.Command{
		Use:   "load [FILE|DIR|-]",
		Short: "Load images from an archive, a directory or stdin",
		Long: `Load what docker save and podman save write (docker-archive, oci-archive), an OCI
layout directory, or a tar of a root filesystem, which needs a --name. Archives may
be compressed by gzip, zstd or bzip2. Every digest is checked, and an archive in
which anything is wrong leaves the store as it was.

Devices that this user cannot make are recorded in an xattr and come out again when
the image is saved.`,
		Example: `  docker save app | lamina image load
  lamina image load app.tar.zst
  debootstrap --variant=minbase stable root && tar -C root -c . | lamina image load --name debian`,
		Args: args(0, 1, "FILE, DIR or - for stdin"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		tell, end := transfer("load")
		o.Progress, o.MaxBytes = tell, int64(most)
		var images []store.Image
		var err error
		if len(args) == 0 || args[0] == "-" {
			if isTerminal(os.Stdin) {
				return usageError{errors.New("stdin is a terminal; name a FILE or DIR, or pipe an archive in")}
			}
			images, err = oci.Load(ctx, s, os.Stdin, o)
		} else {
			images, err = oci.LoadFile(ctx, s, args[0], o)
		}
		end()
		if err != nil {
			return err
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), describeImages(images))
		}
		for _, i := range images {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", i.ID, strings.Join(i.Names, " "))
		}
		return nil
	})
	cmd.Flags().StringArrayVar(&o.Names, "name", nil, "call the image `NAME`, in place of what the archive says; repeat it for more")
	cmd.Flags().Var(&most, "max-layer", "refuse layers that unpack to more than `SIZE` (default 256G)")
	return cmd
}

func newImageSave() *cobra.Command {
	var f storeFlags
	var o oci.SaveOptions
	var output string
	cmd := &cobra.Command{
		Use:   "save [-o FILE] IMAGE...",
		Short: "Save images as an archive or a directory",
		Long: `Save images. Layers come out as the very bytes that they were loaded from, so ids
and digests stay; with --compress the blobs are new ones, and the ids stay.

The formats are docker-archive, which docker, podman and everything that reads OCI
archives take, oci-archive, and oci-layout, for which --output is a new directory.`,
		Example: `  lamina image save app | podman load
  lamina image save --format oci-archive --compress zstd -o app.tar app`,
		Args: args(1, -1, "at least one IMAGE"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		var images []store.Image
		for _, name := range args {
			i, err := s.Image(name)
			if err != nil {
				return err
			}
			images = append(images, i)
		}
		tell, end := transfer("save")
		defer end()
		o.Progress = tell
		if o.Format == oci.OCILayout {
			if output == "" || output == "-" {
				return usageError{errors.New("--format oci-layout needs --output DIR, a new directory")}
			}
			return oci.SaveLayout(ctx, s, output, images, o)
		}
		return toFile(output, func(w *os.File) error { return oci.Save(ctx, s, w, images, o) })
	})
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` in place of stdout")
	cmd.Flags().StringVar(&o.Format, "format", oci.DockerArchive, "`FORMAT` is docker-archive, oci-archive or oci-layout")
	cmd.Flags().StringVar(&o.Compression, "compress", oci.None, "compress layers by none, gzip or zstd")
	return cmd
}

// imageText is an image as it is listed.
type imageText struct {
	ID      string    `json:"id"`
	Names   []string  `json:"names"`
	Layers  []string  `json:"layers"`
	Created time.Time `json:"created"` // as the configuration says, or when it was loaded
	Store   string    `json:"store,omitempty"`
}

func describeImages(images []store.Image) []imageText {
	list := []imageText{}
	for _, i := range images {
		list = append(list, imageText{i.ID, i.Names, i.Layers, createdAt(&i), i.Store})
	}
	return list
}

func createdAt(i *store.Image) time.Time {
	var config v1.Image
	if json.Unmarshal(i.Config, &config) == nil && config.Created != nil {
		return *config.Created
	}
	return i.Created
}

func newImageList() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List images",
		Example: "  lamina image ls", Args: args(0, 0, "no arguments"),
	}
	return onStore(cmd, &f, func(_ context.Context, s *store.Store, _ []string) error {
		images, err := s.Images()
		if err != nil {
			return err
		}
		more, err := s.AdditionalImages()
		if err != nil {
			return err
		}
		images = append(images, more...)
		if f.json {
			return printJSON(cmd.OutOrStdout(), describeImages(images))
		}
		store := column(len(more) > 0)
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "NAME\tID\tLAYERS\tCREATED"+store("READ FROM"))
		for _, i := range images {
			for _, name := range namesOrNone(i.Names) {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s%s\n", name, short(i.ID), len(i.Layers), createdAt(&i).Local().Format(time.DateTime), store(i.Store))
			}
		}
		return w.Flush()
	})
}

func namesOrNone(names []string) []string {
	if len(names) == 0 {
		return []string{"<none>"}
	}
	return names
}

// short shortens a digest as docker does.
func short(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

func newImageRm() *cobra.Command {
	var f storeFlags
	var keep bool
	cmd := &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove images",
		Long: `Remove names of images, and with the last name the image. Layers that nothing needs any
more go with it, unless --keep-layers leaves them for a later lamina gc.`,
		Example: "  lamina image rm app", Args: args(1, -1, "at least one IMAGE"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		var failed []error
		for _, name := range args {
			failed = append(failed, s.RemoveImage(name))
		}
		if !keep {
			_, err := s.GC(ctx, nil)
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
	cmd.Flags().BoolVar(&keep, "keep-layers", false, "leave the layers for lamina gc")
	return cmd
}

func newImageHistory() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use: "history IMAGE", Short: "Show how an image was made",
		Example: "  lamina image history app", Args: args(1, 1, "IMAGE"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		i, err := s.Image(args[0])
		if err != nil {
			return err
		}
		var config v1.Image
		if err := json.Unmarshal(i.Config, &config); err != nil {
			return fmt.Errorf("image %s: its configuration: %w", args[0], err)
		}
		if f.json {
			return printJSON(cmd.OutOrStdout(), config.History)
		}
		return printHistory(cmd.OutOrStdout(), ctx, s, &i, config.History)
	})
}

// printHistory lists the steps, the last one first, with the layers that they
// have left.
func printHistory(out io.Writer, ctx context.Context, s *store.Store, i *store.Image, history []v1.History) error {
	layers := i.Layers
	var lines []string
	for _, h := range history {
		layer, size, when := "", "0", ""
		if !h.EmptyLayer && len(layers) > 0 {
			l, err := s.Layer(layers[0])
			if err != nil {
				return err
			}
			u, err := s.Usage(ctx, &l)
			if err != nil {
				return err
			}
			layer, size, layers = short(l.Name), bytesText(uint64(u.Bytes)), layers[1:]
		}
		if h.Created != nil {
			when = h.Created.Local().Format(time.DateTime)
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s", layer, when, size, strings.Join(strings.Fields(h.CreatedBy), " ")))
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "LAYER\tCREATED\tSIZE\tCREATED BY")
	for n := len(lines) - 1; n >= 0; n-- {
		fmt.Fprintln(w, lines[n])
	}
	return w.Flush()
}

func newImageMount() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "mount IMAGE [TARGET]",
		Short: "Mount an image read-only and print where",
		Example: `  lamina image mount app /mnt/app
  ls "$(lamina image mount app)"`,
		Args: args(1, 2, "IMAGE and at most a TARGET"),
	}
	return onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		l, err := topLayer(s, args[0])
		if err != nil {
			return err
		}
		return mountLayer(ctx, cmd, &f, s, l, driver.MountOptions{Target: arg(args, 1), ReadOnly: true})
	})
}

func newImageUmount() *cobra.Command {
	var f storeFlags
	var lazy bool
	cmd := &cobra.Command{
		Use: "umount IMAGE [TARGET]", Aliases: []string{"unmount"}, Short: "Unmount an image from TARGET, or from everywhere",
		Example: "  lamina image umount app", Args: args(1, 2, "IMAGE and at most a TARGET"),
	}
	onStore(cmd, &f, func(ctx context.Context, s *store.Store, args []string) error {
		l, err := topLayer(s, args[0])
		if err != nil {
			return err
		}
		return s.Driver.Unmount(ctx, l.ID, arg(args, 1), lazy)
	})
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "also when it is busy")
	return cmd
}

// topLayer returns the layer whose view is the image.
func topLayer(s *store.Store, image string) (store.Layer, error) {
	i, err := s.Image(image)
	if err != nil {
		return store.Layer{}, err
	}
	if i.Top() == "" {
		return store.Layer{}, fmt.Errorf("image %s has no layers", image)
	}
	return s.Layer(i.Top())
}

// arg returns an argument that may be missing.
func arg(args []string, n int) string {
	if n < len(args) {
		return args[n]
	}
	return ""
}
