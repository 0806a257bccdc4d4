package handshake

import (
	"crypto/sha1"
	"encoding/base64"
)

// guid is what RFC 6455 section 1.3 has appended to the key.
const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Accept returns the Sec-WebSocket-Accept for a key of KeyLen characters, without the white space around it (RFC 6455
// section 4.2.2, item 5.4). It panics for a key of another length: Parse has refused those.
func Accept(key []byte) [AcceptLen]byte {
	if len(key) != KeyLen {
		panic("handshake: the key has not been checked")
	}
	var in [KeyLen + len(guid)]byte
	copy(in[:], key)
	copy(in[KeyLen:], guid)
	sum := sha1.Sum(in[:])
	var accept [AcceptLen]byte
	base64.StdEncoding.Encode(accept[:], sum[:])
	return accept
}

// AppendResponse appends the answer that opens the connection to dst (RFC 6455 section 4.2.2). key is Request.Key;
// protocol is the one chosen of Request.Protocols, or nil; extensions is the value of Sec-WebSocket-Extensions, or nil.
// All three are only read.
func AppendResponse(dst, key, protocol, extensions []byte) []byte {
	accept := Accept(key)
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = append(dst, accept[:]...)
	if len(protocol) > 0 {
		dst = append(dst, "\r\nSec-WebSocket-Protocol: "...)
		dst = append(dst, protocol...)
	}
	if len(extensions) > 0 {
		dst = append(dst, "\r\nSec-WebSocket-Extensions: "...)
		dst = append(dst, extensions...)
	}
	return append(dst, "\r\n\r\n"...)
}
