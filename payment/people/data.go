// Package people has the services that the payment service asks about its payers: data goes in, and the contact, family or
// document service comes out.
package people

import (
	"bytes"
	_ "embed" // for the data of a process that is given none
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Data is what the services know. It is not changed once read.
type Data struct {
	Users     []User     `json:"users"`
	Families  []Family   `json:"families"`
	Documents []Document `json:"documents"`
}

// User is a person that can pay.
type User struct {
	ID          string `json:"user_id"`
	DisplayName string `json:"display_name"`
	// FamilyID is empty for a user of no family.
	FamilyID string `json:"family_id,omitempty"`
}

// Family is one; its members are the users that name it.
type Family struct {
	ID          string `json:"family_id"`
	DisplayName string `json:"display_name"`
}

// Document is one of a user's.
type Document struct {
	ID      string `json:"document_id"`
	OwnerID string `json:"owner_user_id"`
	Title   string `json:"title"`
}

//go:embed data.json
var embedded []byte

// Default is a small world: two users of one family, and one alone, with a few documents.
func Default() (Data, error) { return Parse(embedded) }

// Load reads a file of Data.
func Load(path string) (Data, error) {
	text, err := os.ReadFile(path) //nolint:gosec // whoever starts the process names it
	if err != nil {
		return Data{}, fmt.Errorf("read the data: %w", err)
	}
	data, err := Parse(text)
	if err != nil {
		return Data{}, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// Parse reads Data from JSON: no unknown key, every ID once, every reference to something that is there.
func Parse(text []byte) (Data, error) {
	var data Data
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&data); err != nil {
		return Data{}, err
	}
	if decoder.More() {
		return Data{}, errors.New("there is something behind the end of the JSON object")
	}
	slices.SortFunc(data.Users, func(x, y User) int { return strings.Compare(x.ID, y.ID) })
	slices.SortFunc(data.Families, func(x, y Family) int { return strings.Compare(x.ID, y.ID) })
	slices.SortFunc(data.Documents, func(x, y Document) int { return strings.Compare(x.ID, y.ID) })
	return data, data.check()
}

func (d Data) check() error {
	var errs []error
	known := map[string]bool{}
	add := func(kind, id string) {
		if id == "" {
			errs = append(errs, fmt.Errorf("a %s has no ID", kind))
		} else if known[kind+" "+id] {
			errs = append(errs, fmt.Errorf("%s %s is there twice: give one of them another ID", kind, id))
		}
		known[kind+" "+id] = true
	}
	for _, family := range d.Families {
		add("family", family.ID)
	}
	for _, user := range d.Users {
		add("user", user.ID)
		if user.FamilyID != "" && !known["family "+user.FamilyID] {
			errs = append(errs, fmt.Errorf("user %s: family_id %s is not one of families", user.ID, user.FamilyID))
		}
	}
	for _, document := range d.Documents {
		add("document", document.ID)
		if !known["user "+document.OwnerID] {
			errs = append(errs, fmt.Errorf("document %s: owner_user_id %s is not one of users", document.ID, document.OwnerID))
		}
	}
	return errors.Join(errs...)
}

func (d Data) user(id string) (User, bool) {
	return find(d.Users, func(u User) bool { return u.ID == id })
}

func (d Data) family(id string) (Family, bool) {
	return find(d.Families, func(f Family) bool { return f.ID == id })
}

// members are the users of a family, by ID.
func (d Data) members(family string) []User {
	var members []User
	for _, user := range d.Users {
		if user.FamilyID == family {
			members = append(members, user)
		}
	}
	return members
}

// withIDs are the users with these IDs, as members of a family, by ID. Those that it does not know are left out.
func (d Data) withIDs(family string, ids []string) []User {
	var members []User
	for _, user := range d.Users {
		if slices.Contains(ids, user.ID) {
			user.FamilyID = family
			members = append(members, user)
		}
	}
	return members
}

func (d Data) document(id string) (Document, bool) {
	return find(d.Documents, func(o Document) bool { return o.ID == id })
}

// documents are those of a user whose ID comes after one, at most so many, and whether there are more.
func (d Data) documents(owner, after string, most int) (page []Document, more bool) {
	for _, document := range d.Documents {
		if document.OwnerID != owner || document.ID <= after {
			continue
		}
		if len(page) == most {
			return page, true
		}
		page = append(page, document)
	}
	return page, false
}

func find[T any](all []T, is func(T) bool) (T, bool) {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], true
	}
	var none T
	return none, false
}
