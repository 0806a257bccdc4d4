//go:build !purego

#include "textflag.h"

// func maskAVX2(p *byte, n int, k32 uint32)
//
// The first and the last 32 bytes are loaded before the loop and stored after it: so the loop may run over whole, aligned
// vectors in between, whatever the alignment and the length, and no byte is handled alone. Where the loop has been there
// too, the late stores write the same values again, made from the bytes as they were.
TEXT ·maskAVX2(SB), NOSPLIT, $0-20
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), DX
	MOVL k32+16(FP), AX

	// Y8, Y9, Y10: the key as it stands at the first byte, at the last 32 bytes, at the first aligned byte.
	MOVD         AX, X8
	VPBROADCASTD X8, Y8
	MOVL         AX, BX
	MOVL         DX, CX
	ANDL         $3, CX
	SHLL         $3, CX
	RORL         CX, BX
	MOVD         BX, X9
	VPBROADCASTD X9, Y9
	MOVQ         SI, DI
	NEGQ         DI
	ANDQ         $31, DI // bytes before the first aligned one
	MOVL         DI, CX
	ANDL         $3, CX
	SHLL         $3, CX
	RORL         CX, AX
	MOVD         AX, X10
	VPBROADCASTD X10, Y10

	VPXOR (SI), Y8, Y8
	VPXOR -32(SI)(DX*1), Y9, Y9
	LEAQ  (SI)(DI*1), R8 // where the loop is
	LEAQ  -32(SI)(DX*1), R9 // where the last 32 bytes begin
	LEAQ  -96(R9), R10 // the last place where four vectors fit before the end

	CMPQ R8, R10
	JA   ones

fours:
	VPXOR   (R8), Y10, Y0
	VPXOR   32(R8), Y10, Y1
	VPXOR   64(R8), Y10, Y2
	VPXOR   96(R8), Y10, Y3
	VMOVDQA Y0, (R8)
	VMOVDQA Y1, 32(R8)
	VMOVDQA Y2, 64(R8)
	VMOVDQA Y3, 96(R8)
	ADDQ    $128, R8
	CMPQ    R8, R10
	JBE     fours

ones:
	CMPQ    R8, R9
	JAE     ends
	VPXOR   (R8), Y10, Y0
	VMOVDQA Y0, (R8)
	ADDQ    $32, R8
	JMP     ones

ends:
	VMOVDQU Y8, (SI)
	VMOVDQU Y9, (R9)
	VZEROUPPER
	RET
