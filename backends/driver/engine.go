package driver

import "fmt"

// An Engine is what shows a layer.
type Engine string

const (
	// Auto takes Native where it works for this user with these options.
	Auto Engine = "auto"
	// Native has the kernel do it.
	Native Engine = "native"
	// Userspace has lamina's own server do it.
	Userspace Engine = "userspace"
)

// Engines are the values that a user can ask for.
var Engines = []Engine{Auto, Native, Userspace}

// A Choice is an engine, and why that one.
type Choice struct {
	Engine Engine `json:"engine"`
	Why    string `json:"why"`
	// Fallback tells that single layers may be shown by the userspace engine,
	// where they need what the native one lacks.
	Fallback bool `json:"fallback,omitempty"`
}

// Choose picks an engine. Each obstacle is a sentence that says why the native
// one cannot be taken here; the first is told. Asking for Native in spite of one
// is [ErrUnsupported].
func Choose(want Engine, obstacles ...string) (Choice, error) {
	switch {
	case want == Userspace:
		return Choice{Engine: Userspace, Why: "asked for by --engine"}, nil
	case want == Native && len(obstacles) == 0:
		return Choice{Engine: Native, Why: "asked for by --engine"}, nil
	case want == Native:
		return Choice{}, fmt.Errorf("the native engine is %w: %s; take --engine=userspace", ErrUnsupported, obstacles[0])
	case want != Auto && want != "":
		return Choice{}, fmt.Errorf("engine %q is %w; accepted: auto, native, userspace", want, ErrUnsupported)
	case len(obstacles) > 0:
		return Choice{Engine: Userspace, Why: obstacles[0]}, nil
	}
	return Choice{Engine: Native, Why: "it works here for this user with these options", Fallback: true}, nil
}
