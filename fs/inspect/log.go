package inspect

import "context"

// Log tells what each layer did to a path and what is below it, the top layer
// first: for each it calls layer, then change for what it changed in the stack
// below it.
func (s *Stack) Log(ctx context.Context, o DiffOptions, failed func(error), layer func(i int) error, change func(i int, c *Change) error) error {
	for i := range s.Layers {
		if err := layer(i); err != nil {
			return err
		}
		if err := s.logLayer(ctx, i, o, failed, func(c *Change) error { return change(i, c) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) logLayer(ctx context.Context, i int, o DiffOptions, failed func(error), visit func(*Change) error) error {
	n := s.Number(i)
	with, err := s.Part(1, n)
	if err != nil {
		return err
	}
	defer with.Close()
	var without *Stack
	if n > 1 {
		if without, err = s.Part(1, n-1); err != nil {
			return err
		}
		defer without.Close()
	}
	err = Diff(ctx, without, with, o, failed, visit)
	if isAbsent(err) {
		return nil // the path came later, or never
	}
	return err
}
