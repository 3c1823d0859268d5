// Package doors has the scripts to start from; those that a program of its own serves are
// embedded here.
package doors

import _ "embed"

// Barrage is barrage.lua, which the load generator measures.
//
//go:embed barrage.lua
var Barrage []byte
