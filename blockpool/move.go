package blockpool

import (
	"slices"

	"github.com/laminafs/lamina/blockpool/internal/format"
)

// moveChunk makes a chunk lie as c says when the txg is durable; c covers what a
// chunk that is there covers.
func (s *pass) moveChunk(c *chunk) {
	s.moved = slices.DeleteFunc(s.moved, func(o *chunk) bool { return o.Base == c.Base })
	s.moved = append(s.moved, c)
	s.saveChunk(c)
}

// publishMoves lets everybody see chunks where they lie now. As they lay before
// they take their place on devices until nobody writes to them so any more.
func (s *pass) publishMoves() {
	for _, c := range s.moved {
		ghost := s.p.space.replace(c)
		s.over = append(s.over, func() { s.p.space.forget(ghost) })
		if c.Class == format.Log {
			s.p.gate.Lock() // nobody appends to the log
			s.p.logArea.chunk.Store(c)
			s.p.gate.Unlock()
		}
	}
}

// replace puts a chunk in the place of the one that covers the same addresses,
// which it returns.
func (s *space) replace(c *chunk) (ghost *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.chunks, func(o *chunk) bool { return o.Base == c.Base })
	ghost = s.chunks[i]
	c.free, c.frozen = ghost.free, ghost.frozen
	s.chunks[i] = c
	s.ghosts = append(s.ghosts, ghost)
	for class := range s.turn {
		if s.turn[class].chunk == ghost {
			s.turn[class].chunk = c
		}
	}
	return ghost
}

// forget ends what replace has begun.
func (s *space) forget(ghost *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ghosts = slices.DeleteFunc(s.ghosts, func(o *chunk) bool { return o == ghost })
}

// allGhosts returns the chunks as they lay before, where that matters still.
func (s *space) allGhosts() []*chunk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ghosts)
}
