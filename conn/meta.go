package conn

import "strings"

// metas interns the kept request headers of a registry's connections (L2.4): most clients of a service send the same
// few, so a connection keeps an index of 4 bytes. Entries are counted and go when their last connection does.
type metas struct {
	none    []string    // the values when no header was sent
	entries []metaEntry // entry 0: no header was sent
	free    []uint32
	index   map[string]uint32 // by the values joined with NUL, which no header value contains
	key     []byte            // scratch
}

type metaEntry struct {
	key    string
	values []string
	refs   uint32
}

// begin starts a lookup; add gives it the next header's value.
func (m *metas) begin() { m.key = m.key[:0] }

func (m *metas) add(value []byte) {
	m.key = append(m.key, value[:min(len(value), maxMetaValue)]...)
	m.key = append(m.key, 0)
}

// end returns the entry of the values added since begin.
func (m *metas) end() uint32 {
	if len(strings.Trim(string(m.key), "\x00")) == 0 {
		return 0
	}
	if i, ok := m.index[string(m.key)]; ok {
		m.entries[i].refs++
		return i
	}
	if m.index == nil {
		m.index = make(map[string]uint32)
		m.entries = make([]metaEntry, 1)
	}
	key := string(m.key)
	e := metaEntry{key: key, values: strings.Split(key[:len(key)-1], "\x00"), refs: 1}
	var i uint32
	if n := len(m.free); n > 0 {
		i, m.free = m.free[n-1], m.free[:n-1]
		m.entries[i] = e
	} else {
		i = uint32(len(m.entries))
		m.entries = append(m.entries, e)
	}
	m.index[key] = i
	return i
}

func (m *metas) values(i uint32) []string {
	if i == 0 {
		return m.none
	}
	return m.entries[i].values
}

func (m *metas) release(i uint32) {
	if i == 0 {
		return
	}
	e := &m.entries[i]
	if e.refs--; e.refs == 0 {
		delete(m.index, e.key)
		*e = metaEntry{}
		m.free = append(m.free, i)
	}
}
