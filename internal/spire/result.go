package spire

// Op is what a Result is the result of.
type Op string

// The operations of a Plan.
const (
	OpCreate Op = "create"
	OpUpdate Op = "update"
	OpDelete Op = "delete"
)

// Code is why a SPIRE server refused a write: the name of a gRPC status code, as in PermissionDenied. It is empty where the
// server did not refuse it.
type Code string

// The codes that mean more than that the write was refused.
const (
	CodeNotFound      Code = "NotFound"
	CodeAlreadyExists Code = "AlreadyExists"
)

// Result is what became of one entry of a Plan.
type Result struct {
	// ID is the entry's, and Op what the plan had for it.
	ID string
	Op Op
	// Code is empty where the server now holds the entry as wanted, or nothing of it where it was to be deleted. Otherwise
	// Message is the server's word for it.
	Code    Code
	Message string
	// Entry is what the server now holds, after a create or an update that it did not refuse.
	Entry *Held
	// Conflict is the entry with another ID that has the same parent, SPIFFE ID and selectors, with CodeAlreadyExists: SPIRE
	// makes no second one.
	Conflict *Held
}

// OK reports whether the server holds the entry as the plan has it.
func (r Result) OK() bool { return r.Code == "" }
