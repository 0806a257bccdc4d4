package conn

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// ID is a connection id (L2.2): where the connection lives and a proof that this process gave the id out.
//
//	byte  0..3   node        random per process, big endian: ids are unique over the cluster
//	byte  4      loop        index of the loop that owns the connection
//	byte  5..7   slot        slot in that loop's slab, big endian
//	byte  8..11  generation  how often the slot had been used before, big endian
//	byte 12..23  tag         the first 12 bytes of AES-128(key of the process, bytes 0..11 padded with zeros)
//
// Nothing random is stored per connection: the tag is computed when an id is asked for and checked when one comes in.
// An ID is comparable and may be used as a map key. The zero ID names no connection.
type ID [24]byte

// IDLen is the length of an id's text form in characters: 24 bytes as unpadded base64url.
const IDLen = 32

// String returns the text form: 32 characters of the base64url alphabet (RFC 4648 section 5).
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// IsZero reports whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// Node returns the part that names the process which gave the id out.
func (id ID) Node() uint32 { return binary.BigEndian.Uint32(id[0:4]) }

// Loop returns the index of the owning loop.
func (id ID) Loop() int { return int(id[4]) }

// Slot returns the slot in the owning loop's slab.
func (id ID) Slot() uint32 { return binary.BigEndian.Uint32(id[4:8]) & 0xffffff }

// Generation returns the slot's generation.
func (id ID) Generation() uint32 { return binary.BigEndian.Uint32(id[8:12]) }

// ParseID reads an id's text form. It checks the form only; whether the id is genuine is for Issuer.Verify to say.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != IDLen {
		return ID{}, fmt.Errorf("connection id has %d characters, expected %d", len(s), IDLen)
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	if err != nil {
		return ID{}, fmt.Errorf("connection id %q: %w", s, err)
	}
	if n != len(id) { // line breaks, which the decoder skips: an id has one text form
		return ID{}, fmt.Errorf("connection id %q: line break", s)
	}
	return id, nil
}

// Issuer makes and verifies the ids of one process. It is immutable and safe from any goroutine.
type Issuer struct {
	node  uint32
	block cipher.Block
}

// NewIssuer returns an Issuer with a random node number and a random key.
func NewIssuer() *Issuer {
	var seed [4 + 16]byte
	rand.Read(seed[:]) // never fails: crypto/rand crashes the program rather than return an error
	return newIssuer(binary.BigEndian.Uint32(seed[:4]), [16]byte(seed[4:]))
}

func newIssuer(node uint32, key [16]byte) *Issuer {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("conn: AES with a 16 byte key: " + err.Error())
	}
	return &Issuer{node: node, block: block}
}

// Node returns the number of this process in its ids.
func (is *Issuer) Node() uint32 { return is.node }

// Make returns the id of the connection in slot of loop, in its given generation.
func (is *Issuer) Make(loop int, slot, generation uint32) ID {
	return is.make(new([16]byte), loop, slot, generation)
}

// make is Make with memory for the cipher's block, which escapes through its interface: a registry has one of its own, so
// that an id for every request costs no allocation.
func (is *Issuer) make(b *[16]byte, loop int, slot, generation uint32) ID {
	binary.BigEndian.PutUint32(b[0:4], is.node)
	binary.BigEndian.PutUint32(b[4:8], uint32(loop)<<24|slot&0xffffff)
	binary.BigEndian.PutUint32(b[8:12], generation)
	clear(b[12:])
	var id ID
	copy(id[:12], b[:12])
	is.block.Encrypt(b[:], b[:])
	copy(id[12:], b[:12])
	return id
}

// Verify reports whether id was made by this Issuer. The comparison takes the same time for every wrong tag.
func (is *Issuer) Verify(id ID) bool {
	want := is.Make(id.Loop(), id.Slot(), id.Generation())
	return subtle.ConstantTimeCompare(want[:], id[:]) == 1
}
