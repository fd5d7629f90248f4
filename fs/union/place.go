package union

import "strings"

// Place tells, for who watches a union, a path of a node and the name of the
// layer that its object lies in, of a directory that of its topmost part. It
// looks nothing up and changes nothing; "" is what cannot be told, such as the
// path of a removed file.
func (fs *FS) Place(id uint64) (path, layer string) {
	if id&virtualBit == 0 {
		n := fs.nodes.get(id)
		return fs.pathOf(n), fs.layerOf(n)
	}
	n, p := fs.virtual.find(id)
	if n != nil {
		return fs.pathOf(n), fs.layerOf(n)
	}
	if p == nil {
		return "", ""
	}
	up := fs.pathOf(p)
	d := p.dir
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.table.at(uint32(id))
	if e == nil || up == "" {
		return "", ""
	}
	if lowers := d.lowers(); e.part > 0 && int(e.part) <= len(lowers) {
		layer = lowers[e.part-1].br.name
	}
	return strings.TrimSuffix(up, "/") + "/" + e.name, layer
}

// pathOf returns one path of a node, "" when no name of it is left.
func (fs *FS) pathOf(n *Node) string {
	if n == nil {
		return ""
	}
	var names []string
	for n != fs.root {
		p, name := n.where()
		if p == nil {
			return ""
		}
		names = append(names, name)
		n = p
	}
	var b strings.Builder
	for i := len(names) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(names[i])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}

// layerOf returns the name of the layer that a node's object lies in.
func (fs *FS) layerOf(n *Node) string {
	switch {
	case n == nil:
		return ""
	case n.isUpper() && fs.upper != nil:
		return fs.upper.name
	case n.dir != nil:
		if lowers := n.dir.lowers(); len(lowers) > 0 {
			return lowers[0].br.name
		}
		return ""
	}
	if at := n.lowerPlace(); at.dir != nil {
		return at.dir.br.name
	}
	return ""
}
