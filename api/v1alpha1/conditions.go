package v1alpha1

// Condition types. All are of positive polarity: True is the state that an owner wants.
const (
	// ConditionAccepted says whether the spec is valid, what it refers to exists, and its SPIFFE ID is granted to its namespace.
	ConditionAccepted = "Accepted"
	// ConditionRegistered says whether the SPIRE server holds the entries exactly as rendered, for every node that needs them.
	ConditionRegistered = "Registered"
	// ConditionReady is True where every other condition of the object is. It is computed from them and never set by a step.
	ConditionReady = "Ready"
)

// Reasons of the condition Accepted.
const (
	// ReasonAccepted (True): the spec is valid and its SPIFFE ID is granted.
	ReasonAccepted = "Accepted"
	// ReasonPathNotGranted (False): no prefix that is granted to the namespace covers the path. The message holds the
	// annotation that an administrator would have to set.
	ReasonPathNotGranted = "PathNotGranted"
	// ReasonPathReserved (False): the path is one that nobody can be granted: /spire, /paymesh, or /ns/ of another namespace.
	ReasonPathReserved = "PathReserved"
	// ReasonPathInvalid (False): together with the trust domain the path is not a valid SPIFFE ID.
	ReasonPathInvalid = "PathInvalid"
	// ReasonIDClaimed (False): another ServiceIdentity had this SPIFFE ID first. The message names it.
	ReasonIDClaimed = "IDClaimed"
)

// Reasons of the condition Registered.
const (
	// ReasonRegistered (True): SPIRE holds an entry for each node that runs the identity.
	ReasonRegistered = "Registered"
	// ReasonNoPods (True): no pod that the identity selects is bound to a node, so SPIRE needs no entry yet.
	ReasonNoPods = "NoPods"
	// ReasonNotAccepted (False): nothing is registered since the identity is not accepted.
	ReasonNotAccepted = "NotAccepted"
	// ReasonConflict (False): SPIRE holds an entry that is not this object's, with the same parent, SPIFFE ID and
	// selectors. The message names it. It is left alone.
	ReasonConflict = "Conflict"
	// ReasonRejected (False): the SPIRE server refused an entry. The message holds its words.
	ReasonRejected = "Rejected"
	// ReasonDrifted (False): SPIRE was seen to hold something else than was written. It is written again by itself.
	ReasonDrifted = "Drifted"
	// ReasonNodeUnknown (Unknown): pods are bound to a node that the API server does not show. No entry is removed meanwhile.
	ReasonNodeUnknown = "NodeUnknown"
	// ReasonSPIREUnavailable (Unknown): the SPIRE server could not be reached, or did not answer. Entries stay as they are.
	ReasonSPIREUnavailable = "SPIREUnavailable"
	// ReasonSyncing (Unknown): the manager has not yet read through what the SPIRE server holds.
	ReasonSyncing = "Syncing"
)

// Reasons of the condition Ready.
const (
	// ReasonReady (True): every other condition is True.
	ReasonReady = "Ready"
	// The reason of a Ready that is not True is that of the first condition that is False, else of the first that is Unknown.
)

// AnnotationSPIFFEPathPrefixes on a Namespace grants SPIFFE ID paths to the identities in it: a list of paths, separated
// by commas. A path grants itself and all below it, in whole segments: /payments grants /payments and /payments/api, not
// /payments-api. Only who may edit Namespaces can set it.
const AnnotationSPIFFEPathPrefixes = "mesh.jia.app/spiffe-path-prefixes"

// FinalizerEntries keeps a deleted ServiceIdentity until its entries are gone from the SPIRE server.
const FinalizerEntries = "mesh.jia.app/spire-entries"
