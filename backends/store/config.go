package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivers"
)

// A Config says where the store is and how its driver is opened. It is what
// lamina.toml holds:
//
//	root    = "/var/lib/lamina"
//	driver  = "overlay2"
//	engine  = "auto"
//	options = ["overlay2.size=10g"]
//	additional = ["/srv/images"]
type Config struct {
	Root    string        `toml:"root"`
	Driver  string        `toml:"driver"`
	Engine  driver.Engine `toml:"engine"`
	Options []string      `toml:"options"`
	// Additional are the roots of further stores, which are only read: their images
	// and committed layers can be used like one's own.
	Additional []string `toml:"additional"`

	Servers    driver.Servers            `toml:"-"`
	PoolServer func(dir string) []string `toml:"-"` // see [driver.Config]
	Volatile   bool                      `toml:"-"`
}

// ConfigFile is where the configuration is read from: the file that
// LAMINA_CONFIG names, /etc/lamina/lamina.toml for root, and
// XDG_CONFIG_HOME/lamina/lamina.toml, which is below ~/.config unless set, for
// others.
func ConfigFile() (string, error) {
	if path := os.Getenv("LAMINA_CONFIG"); path != "" {
		return path, nil
	}
	if unix.Geteuid() == 0 {
		return "/etc/lamina/lamina.toml", nil
	}
	dir, err := xdg("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "lamina.toml"), nil
}

// DefaultRoot is where the store is unless said otherwise: /var/lib/lamina for
// root, XDG_DATA_HOME/lamina, which is below ~/.local/share unless set, for others.
func DefaultRoot() (string, error) {
	if unix.Geteuid() == 0 {
		return "/var/lib/lamina", nil
	}
	return xdg("XDG_DATA_HOME", ".local/share")
}

func xdg(variable, fallback string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return filepath.Join(dir, "lamina"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the store: %w; set %s or give --root DIR", err, variable)
	}
	return filepath.Join(home, fallback, "lamina"), nil
}

// ReadConfig reads the configuration, and fills in what it leaves open. A file
// that is not there leaves all open, unless LAMINA_CONFIG names it.
func ReadConfig() (Config, error) {
	var c Config
	path, err := ConfigFile()
	if err != nil {
		return c, err
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist) && os.Getenv("LAMINA_CONFIG") == "":
	case err != nil:
		return c, fmt.Errorf("configuration: %w", err)
	default:
		defer f.Close()
		if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&c); err != nil {
			return c, configError(path, err)
		}
	}
	return c, c.fill()
}

// configError says where the file is wrong.
func configError(path string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("configuration %s, line %d: no such setting: %s; there are: root, driver, engine, options, additional", path, row, strings.Join(strict.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Errorf("configuration %s, line %d, column %d: %w", path, row, column, err)
	}
	return fmt.Errorf("configuration %s: %w", path, err)
}

// Exists reports whether the store has been made.
func (c *Config) Exists() bool {
	_, err := os.Stat(filepath.Join(c.Root, storeFile))
	return err == nil || len(c.Additional) > 0
}

func (c *Config) fill() (err error) {
	if c.Root == "" {
		if c.Root, err = DefaultRoot(); err != nil {
			return err
		}
	}
	if c.Driver == "" {
		c.Driver = drivers.Default
	}
	if c.Engine == "" {
		c.Engine = driver.Auto
	}
	return nil
}
