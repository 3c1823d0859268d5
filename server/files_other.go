//go:build !unix

package server

// maxFiles returns 0: sockets are not limited by number here.
func maxFiles() int { return 0 }
