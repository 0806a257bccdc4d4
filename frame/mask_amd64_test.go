//go:build !purego

package frame

func init() {
	if haveAVX2 {
		kernels = append(kernels, kernel{"avx2", 32, func(p []byte, k32 uint32) { maskAVX2(&p[0], len(p), k32) }})
	}
	kernels = append(kernels, kernel{"without avx2", 0, func(p []byte, k32 uint32) {
		defer func(have bool) { haveAVX2 = have }(haveAVX2)
		haveAVX2 = false
		maskTurned(p, k32)
	}})
}
