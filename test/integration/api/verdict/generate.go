package verdict

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// The characters of generated names. The wrong ones are those that a rule could let through by mistake: neighbours of the
// right ranges in ASCII, what URLs allow (go-spiffe's build tag for old IDs allows some of it), controls, look-alikes.
const (
	rightPathCharacters = "abcxyzABCXYZ0189-._"
	wrongPathCharacters = "@[`{:,^~!$&'()*+;=%?#\\\"<>| \t\n\r\x00\x7fé/ａ/．\u200b\ufffd"
	rightDNSCharacters  = "abcxyz0189-"
	wrongDNSCharacters  = "AZ_*@[`{:/ \t\n\x00\x7fé。．ß\u200d"
)

// RandomPath returns a SPIFFE ID path, or something close to one: about half of them are valid.
func RandomPath(r *rand.Rand) string {
	segments := make([]string, 1+r.IntN(4))
	for i := range segments {
		segments[i] = randomSegment(r)
	}
	if r.IntN(8) == 0 {
		segments[0] = pick(r, "spire", "spire", "spirex", "Spire", "SPIRE", "spire.", ".spire", "spir", "xspire", "spire-server")
	}
	if r.IntN(40) == 0 { // lengths around the bound
		length := 1780 + r.IntN(8)
		path := "/" + strings.Join(segments, "/")
		return path + strings.Repeat(string(rightPathCharacters[r.IntN(len(rightPathCharacters))]), max(0, length-len(path)))
	}
	path := "/" + strings.Join(segments, "/")
	if r.IntN(3) > 0 {
		path = mutate(r, path, rightPathCharacters+"//..", wrongPathCharacters)
	}
	return path
}

func randomSegment(r *rand.Rand) string {
	switch r.IntN(24) {
	case 0:
		return pick(r, "", ".", "..")
	case 1, 2:
		return pick(r, "...", "....", ".a", "a.", "..a", "a..", ".a.", "-", "_", "a..b", "-.", "._", "...-")
	default:
		return randomText(r, rightPathCharacters, 1+r.IntN(12))
	}
}

// RandomDNSName returns a DNS name, or something close to one: about half of them are valid.
func RandomDNSName(r *rand.Rand) string {
	labels := make([]string, 1+r.IntN(4))
	for i := range labels {
		labels[i] = randomLabel(r)
	}
	name := strings.Join(labels, ".")
	if r.IntN(30) == 0 { // lengths around the bound
		for len(name) < 249+r.IntN(8) {
			name = randomText(r, "abc09", 1+r.IntN(20)) + "." + name
		}
	}
	if r.IntN(3) > 0 {
		name = mutate(r, name, rightDNSCharacters+"..", wrongDNSCharacters)
	}
	return name
}

func randomLabel(r *rand.Rand) string {
	switch r.IntN(24) {
	case 0:
		return pick(r, "", "*", "-a", "a-", "-", "--", "xn--", "xn--bcher-kva", "xn--a", "ab--cd", "ab---", "a--b", "a---b", "abc--d", "_tcp")
	case 1:
		return strings.Repeat("a", 62+r.IntN(3))
	default:
		return randomText(r, "abcxyz0189", 1) + randomText(r, rightDNSCharacters, r.IntN(9)) + randomText(r, "abcxyz0189", 1)
	}
}

// RandomName returns text of right characters, with wrong ones in about a third of the cases, of at most length runes or
// a little more.
func RandomName(r *rand.Rand, right, wrong string, length int) string {
	text := randomText(r, right, 1+r.IntN(length))
	switch r.IntN(12) {
	case 0:
		return text + randomText(r, right, length)
	case 1, 2:
		return mutate(r, text, right, wrong)
	case 3:
		return ""
	}
	return text
}

// mutate inserts, deletes or replaces one to three characters.
func mutate(r *rand.Rand, text, right, wrong string) string {
	characters := []rune(text)
	for range 1 + r.IntN(3) {
		from := []rune(right)
		if r.IntN(3) > 0 {
			from = []rune(wrong)
		}
		at, character := r.IntN(len(characters)+1), from[r.IntN(len(from))]
		switch {
		case r.IntN(3) == 0 || at == len(characters):
			characters = slices.Insert(characters, at, character)
		case r.IntN(2) == 0:
			characters[at] = character
		default:
			characters = slices.Delete(characters, at, at+1)
		}
	}
	return string(characters)
}

func randomText(r *rand.Rand, characters string, length int) string {
	var text strings.Builder
	for range length {
		text.WriteByte(characters[r.IntN(len(characters))])
	}
	return text.String()
}

func pick(r *rand.Rand, words ...string) string {
	return words[r.IntN(len(words))]
}
