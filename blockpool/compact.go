package blockpool

import (
	"context"
	"fmt"
	"os"
)

// A Compaction tells what compacting a replica of the metadata did. Sizes are of
// the file, in bytes.
type Compaction struct {
	Replica string `json:"replica"`
	Before  int64  `json:"before"`
	After   int64  `json:"after"`
}

// Compact writes each replica of the metadata anew without its free pages, one
// after the other, while the pool is in use: changes wait meanwhile, readers do
// not. A replica that failed is in use again after it. A crash leaves each replica
// as it was or compact. What was done before an error, or before ctx ended, is
// returned with the error.
func (p *Pool) Compact(ctx context.Context) (done []Compaction, err error) {
	if err := p.readOnly(); err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}
	for _, path := range p.replicaPaths() {
		if ctx.Err() != nil {
			return done, context.Cause(ctx)
		}
		c := Compaction{Replica: path}
		if st, err := os.Stat(path); err == nil {
			c.Before = st.Size()
		}
		if err := p.meta.Compact(path); err != nil {
			return done, fmt.Errorf("compact %s: %w", path, err)
		}
		st, err := os.Stat(path)
		if err != nil {
			return done, fmt.Errorf("compact %s: %w", path, err)
		}
		c.After = st.Size()
		done = append(done, c)
	}
	return done, nil
}
