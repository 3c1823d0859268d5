//go:build !linux

package bench

// newReactor returns what reads the connections of f.
func newReactor(f *fleet) reactor { return newGoroutines(f) }
