package doctor

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// machine reads files below the root of a file system. Names have no slash in front.
type machine struct{ root fs.FS }

// numbers returns the numbers in a file of white space and numbers; ok is false when it cannot be read or has
// anything else.
func (m machine) numbers(name string) (n []int64, ok bool) {
	text, err := fs.ReadFile(m.root, name)
	if err != nil {
		return nil, false
	}
	for _, field := range strings.Fields(string(text)) {
		v, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			if _, big := strconv.ParseUint(field, 10, 64); big != nil {
				return nil, false
			}
			v = 1<<63 - 1 // fs.file-max may be 2^63 and more
		}
		n = append(n, v)
	}
	return n, true
}

// number returns the number at index i of such a file.
func (m machine) number(name string, i int) (int64, bool) {
	if n, ok := m.numbers(name); ok && i < len(n) {
		return n[i], true
	}
	return 0, false
}

// sysctl returns number i of a kernel setting by its name with dots.
func (m machine) sysctl(name string, i int) (int64, bool) {
	return m.number("proc/sys/"+strings.ReplaceAll(name, ".", "/"), i)
}

// available returns MemAvailable [bytes].
func (m machine) available() (int64, bool) {
	text, err := fs.ReadFile(m.root, "proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10, true
		}
	}
	return 0, false
}

// kernelBytes returns the kernel's memory per connection, from the sizes of its objects in /proc/slabinfo, which only root
// may read; measured is false when it is the constant.
func (m machine) kernelBytes() (bytes int64, measured bool) {
	text, err := fs.ReadFile(m.root, "proc/slabinfo")
	if err != nil {
		return kernelBytes, false
	}
	sizes := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		var name string
		var active, all, size int64
		if n, _ := fmt.Sscan(line, &name, &active, &all, &size); n == 4 {
			sizes[name] = size
		}
	}
	for _, name := range slabNames {
		if sizes[name] == 0 { // a kernel that merges caches or names them otherwise
			return kernelBytes, false
		}
		bytes += sizes[name]
	}
	return bytes, true
}
