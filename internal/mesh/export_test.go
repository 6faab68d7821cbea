package mesh

import "crypto/sha256"

// HasRead reports whether a descriptor set has been read, by whichever Build.
func HasRead(descriptors []byte) bool { return apis.get(sha256.Sum256(descriptors)) != nil }

// Work is what Builds did with a descriptor set: how many cuts they measured and made, of which they know the outcome.
func Work(descriptors []byte) (measured, made int) {
	known := apis.get(sha256.Sum256(descriptors))
	return len(known.api.sizes), len(known.api.made)
}

// LetGo forgets the descriptor set that was taken apart last; TookApart reports whether one was since.
func LetGo()          { apis.apartOf, apis.apart = nil, nil }
func TookApart() bool { return apis.apart != nil }
