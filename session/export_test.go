package session

// Claims returns how many members have a login under way.
func (g *Gateway) Claims() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.claims)
}
