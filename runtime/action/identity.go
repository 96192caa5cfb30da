package action

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// idLength is how much of a key a person reads and types: 50 bits.
const idLength = 10

// encoding has no characters that need quoting in a shell, a URL, a Kubernetes annotation or a file name.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Key is the hash of the identity: the idempotency key that the back end gets, for ever the same for the same action.
// Each part is preceded by its length, so that no two identities share a canonical form.
func (i Identity) Key() string {
	h := sha256.New()
	for _, part := range []string{
		"runbook action 1", i.Namespace, i.Runbook, i.Target, i.Episode, strconv.Itoa(i.Attempt), strconv.Itoa(i.Step),
	} {
		// A hash never fails to take bytes.
		_, _ = fmt.Fprintf(h, "%d:%s,", len(part), part)
	}
	return encoding.EncodeToString(h.Sum(nil))
}

// ShortID is the name by which people call a record: the first characters of its key.
func ShortID(key string) string {
	if len(key) < idLength {
		return key
	}
	return key[:idLength]
}

// AttemptID is the name of the attempt that the identity belongs to, whatever its step.
func (i Identity) AttemptID() string {
	i.Step = 0
	return ShortID(i.Key())
}

// NewNonce reads 128 bits from r and spells them. A person who resolves an action in doubt must give the nonce of the record
// that was read, so that an old terminal cannot decide about a newer one.
func NewNonce(r io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return "", fmt.Errorf("nonce: %w", err)
	}
	return encoding.EncodeToString(b[:]), nil
}

// sameNonce compares what a person typed, who may have copied a space or capitals.
func sameNonce(record, typed string) bool {
	return record != "" && strings.EqualFold(record, strings.TrimSpace(typed))
}
