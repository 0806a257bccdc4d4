package loop

// mangle overwrites a buffer whose loan has ended, so that whoever kept it is found out.
func mangle(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
