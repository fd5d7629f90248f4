package devicemapper

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/backends/devicemapper/dm"
	"github.com/laminafs/lamina/backends/driver"
)

// thinStatus is what a pool says of itself (Documentation/admin-guide/device-mapper/
// thin-provisioning.rst).
type thinStatus struct {
	metadataUsed, metadataTotal uint64 // blocks of 4096 bytes
	dataUsed, dataTotal         uint64 // blocks of the pool
	mode                        string // rw, ro, out_of_data_space
	needsCheck                  bool
}

// parseThinStatus reads "TRANSACTION USED/TOTAL USED/TOTAL HELD MODE …".
func parseThinStatus(text string) (s thinStatus, err error) {
	f := strings.Fields(text)
	if len(f) < 5 {
		return s, fmt.Errorf("the pool says of itself: %q", text)
	}
	pair := func(text string, used, total *uint64) {
		a, b, _ := strings.Cut(text, "/")
		var e1, e2 error
		*used, e1 = strconv.ParseUint(a, 10, 64)
		*total, e2 = strconv.ParseUint(b, 10, 64)
		err = errors.Join(err, e1, e2)
	}
	pair(f[1], &s.metadataUsed, &s.metadataTotal)
	pair(f[2], &s.dataUsed, &s.dataTotal)
	s.mode = f[4]
	s.needsCheck = strings.Contains(text, "needs_check")
	return s, err
}

// metadataBlock is the size of a block of dm-thin's metadata.
const metadataBlock = 4096

func (p *thinPool) look() (s thinStatus, blockSize int64, err error) {
	_, text, err := p.control.Status(p.name)
	if err != nil {
		return s, 0, err
	}
	if s, err = parseThinStatus(text); err != nil {
		return s, 0, err
	}
	_, table, err := p.control.Table(p.name)
	if err != nil {
		return s, 0, err
	}
	f := strings.Fields(table) // metadata, data, block size, …
	if len(f) < 3 {
		return s, 0, fmt.Errorf("the table of %s is %q", p.name, table)
	}
	sectors, err := strconv.ParseInt(f[2], 10, 64)
	return s, sectors * dm.SectorSize, err
}

func (p *thinPool) space(context.Context) (space, error) {
	s, block, err := p.look()
	if err != nil {
		return space{}, err
	}
	if s.mode == "ro" || s.mode == "Fail" || s.needsCheck {
		return space{}, fmt.Errorf("the pool %s takes no writes (%s); unmount its layers and mend its metadata with: thin_check, thin_repair", p.name, s.mode)
	}
	return space{int64(s.dataUsed) * block, int64(s.dataTotal) * block, int64(s.metadataUsed) * metadataBlock, int64(s.metadataTotal) * metadataBlock}, nil
}

func (p *thinPool) status(context.Context) ([]driver.Field, error) {
	_, block, err := p.look()
	if err != nil {
		return nil, err
	}
	fields := []driver.Field{
		{Name: "Pool Name", Value: p.name},
		{Name: "Pool Blocksize", Value: human(block)},
	}
	switch {
	case p.borrowed:
	case p.set.dataDev != "":
		fields = append(fields, driver.Field{Name: "Data file", Value: p.set.dataDev}, driver.Field{Name: "Metadata file", Value: p.set.metadataDev})
	default:
		dir := filepath.Join(p.root, "devicemapper")
		fields = append(fields, driver.Field{Name: "Data loop file", Value: filepath.Join(dir, "data")}, driver.Field{Name: "Metadata loop file", Value: filepath.Join(dir, "metadata")})
	}
	return fields, nil
}
