package v1alpha1

// Condition types. All are of positive polarity: True is the state that an owner wants.
const (
	// ConditionAccepted says whether the spec is valid, what it refers to exists, and its SPIFFE ID is granted to its namespace.
	ConditionAccepted = "Accepted"
	// ConditionRegistered says whether the SPIRE server holds the entries exactly as rendered, for every node that needs them.
	ConditionRegistered = "Registered"
	// ConditionWorkloadReady says whether the Deployment runs the wanted revision, with every pod available.
	ConditionWorkloadReady = "WorkloadReady"
	// ConditionDependenciesResolved says whether each of dependsOn names a service that exists and allows this one.
	ConditionDependenciesResolved = "DependenciesResolved"
	// ConditionExposed says whether each of expose is accepted by its gateway.
	ConditionExposed = "Exposed"
	// ConditionProgrammed says whether every proxy of the object's pods has ACKed the current listeners, routes and clusters.
	ConditionProgrammed = "Programmed"
	// ConditionReady is True where every other condition of the object is. It is computed from them and never set by a step.
	ConditionReady = "Ready"
)

// Reasons of the condition Accepted.
const (
	// ReasonAccepted (True): the spec is valid and its SPIFFE ID is granted.
	ReasonAccepted = "Accepted"
	// ReasonGrantInvalid (True): a part of the namespace's grant is no path, and what can be read of it does not cover the path
	// of this identity, which was accepted before and stays so meanwhile. The message names the part, and what to type.
	ReasonGrantInvalid = "GrantInvalid"
	// ReasonPathNotGranted (False): no prefix that is granted to the namespace covers the path. The message holds the
	// annotation that an administrator would have to set.
	ReasonPathNotGranted = "PathNotGranted"
	// ReasonPathReserved (False): the path is one that nobody can be granted: /spire, /paymesh, or /ns/ of another namespace.
	ReasonPathReserved = "PathReserved"
	// ReasonPathInvalid (False): together with the trust domain the path is not a valid SPIFFE ID.
	ReasonPathInvalid = "PathInvalid"
	// ReasonPathValueMissing (False): the path template needs a label that podLabels does not have, or has without a value.
	ReasonPathValueMissing = "PathValueMissing"
	// ReasonIDClaimed (False): another ServiceIdentity had this SPIFFE ID first. The message names it.
	ReasonIDClaimed = "IDClaimed"
)

// Reasons of the condition Registered.
const (
	// ReasonRegistered (True): SPIRE holds an entry for each node that runs the identity, or the one for the cluster.
	ReasonRegistered = "Registered"
	// ReasonFederationDegraded (True): SPIRE holds every entry that is needed, but has no bundle of some of federatesWith. The
	// message names them. They join by themselves when the bundle is there.
	ReasonFederationDegraded = "FederationDegraded"
	// ReasonNoPods (True): no pod that the identity selects is bound to a node, so SPIRE needs no entry yet.
	ReasonNoPods = "NoPods"
	// ReasonNotAccepted (False): nothing is registered since the identity is not accepted. Of a MeshService and a MeshGateway
	// the other conditions have it, too, False or Unknown: what runs stays as it is while it is not known what should.
	ReasonNotAccepted = "NotAccepted"
	// ReasonConflict (False): SPIRE holds an entry that is not this object's, with the same parent, SPIFFE ID and
	// selectors. The message names it. It is left alone.
	ReasonConflict = "Conflict"
	// ReasonRejected (False): the SPIRE server refused an entry. The message holds its words.
	ReasonRejected = "Rejected"
	// ReasonDrifted (False): SPIRE was seen to hold something else than was written. It is written again by itself.
	ReasonDrifted = "Drifted"
	// ReasonDeletionsHeld (True, False): SPIRE holds every entry that is needed, and others that nobody needs: too many would
	// go at a time, so the deletion brake holds them back. The message holds the command that lets them go. It is False where
	// the identity is not accepted.
	ReasonDeletionsHeld = "DeletionsHeld"
	// ReasonDryRun (False, True): the manager runs with --dry-run. The message holds what it would write. It is True where that
	// is only to delete entries that nobody needs.
	ReasonDryRun = "DryRun"
	// ReasonAdopting (True): SPIRE holds every entry that is needed, and entries of somebody else's that the annotation
	// mesh.jia.app/adopt-entries names. The message says which of them go, and which stay and why.
	ReasonAdopting = "Adopting"
	// ReasonNodeUnknown (Unknown): pods are bound to a node that the API server does not show. No entry is removed meanwhile.
	ReasonNodeUnknown = "NodeUnknown"
	// ReasonUnscheduled (of status.waitingPods alone): the pods are bound to no node yet.
	ReasonUnscheduled = "Unscheduled"
	// ReasonSPIREUnavailable (Unknown): the SPIRE server could not be reached, or did not answer. Entries stay as they are.
	ReasonSPIREUnavailable = "SPIREUnavailable"
	// ReasonSyncing (Unknown): the manager has not yet read through what the SPIRE server holds.
	ReasonSyncing = "Syncing"
)

// Reasons of the condition Accepted, of MeshService and MeshGateway. The reasons of the paths above are theirs, too: they
// are what the ServiceIdentity says.
const (
	// ReasonIdentityNotFound (False): spec.identity.name names no ServiceIdentity of the namespace.
	ReasonIdentityNotFound = "IdentityNotFound"
	// ReasonIdentityMismatch (False): the ServiceIdentity that spec.identity.name names is for other pods.
	ReasonIdentityMismatch = "IdentityMismatch"
	// ReasonTrustDomainForeign (False): a from.spiffeID is of another trust domain, whose certificates the sidecars do not take.
	ReasonTrustDomainForeign = "TrustDomainForeign"
	// ReasonConfigInvalid (False): the payment service would not start with spec.workload.config. The message holds its words.
	ReasonConfigInvalid = "ConfigInvalid"
	// ReasonPatchInvalid (False): spec.workload.patch cannot be applied, or reaches what it may not.
	ReasonPatchInvalid = "PatchInvalid"
	// ReasonDescriptorInvalid (False): the ConfigMap of spec.api.descriptorSet is not there, or holds no descriptor set that a
	// gateway could load.
	ReasonDescriptorInvalid = "DescriptorInvalid"
	// ReasonKeysInvalid (False): the ConfigMap of a jwt is not there, or holds no set of public keys, or too large a one.
	ReasonKeysInvalid = "KeysInvalid"
)

// Reasons of the condition WorkloadReady.
const (
	// ReasonAvailable (True): every pod of the wanted revision is available.
	ReasonAvailable = "Available"
	// ReasonScaledToZero (True): spec.workload.replicas is 0, and no pod runs.
	ReasonScaledToZero = "ScaledToZero"
	// ReasonProgressing (False): pods of the wanted revision are not available yet. The message says what they wait for.
	ReasonProgressing = "Progressing"
	// ReasonApplyFailed (False): the API server refused an object. The message holds its words.
	ReasonApplyFailed = "ApplyFailed"
	// ReasonForeignObject (False): an object that the workload needs exists and belongs to somebody else. It is left alone.
	ReasonForeignObject = "ForeignObject"
	// ReasonVolumeTerminating (False): somebody deletes the claim of the volume of spec.workload.persistence, and it goes when
	// its pod ends. The message says what keeps the volume.
	ReasonVolumeTerminating = "VolumeTerminating"
	// ReasonTerminating (False): the object is being deleted, and its pods end.
	ReasonTerminating = "Terminating"
)

// Reasons of the condition DependenciesResolved.
const (
	// ReasonResolved (True): each dependency exists and allows this service.
	ReasonResolved = "Resolved"
	// ReasonServiceNotFound (False): a dependency does not exist.
	ReasonServiceNotFound = "ServiceNotFound"
	// ReasonNotAllowed (False): a dependency does not allow this service. The message holds what to write there.
	ReasonNotAllowed = "NotAllowed"
	// ReasonServiceNotAccepted (False): a dependency exists, and its identity is not accepted (yet). Of Exposed: the service's own is not.
	ReasonServiceNotAccepted = "ServiceNotAccepted"
	// ReasonPortUnknown (False): a port is named that the service's spec.ports does not have, or none where there are several.
	// Of Exposed: the same of the service's own ports.
	ReasonPortUnknown = "PortUnknown"
)

// Reasons of the condition Exposed.
const (
	// ReasonExposed (True): the gateways serve every exposure.
	ReasonExposed = "Exposed"
	// ReasonGatewayNotFound (False): an exposure names a gateway that does not exist.
	ReasonGatewayNotFound = "GatewayNotFound"
	// ReasonGatewayNotAccepted (False): the gateway exists, and is itself not accepted.
	ReasonGatewayNotAccepted = "GatewayNotAccepted"
	// ReasonNotAdmitted (False): the gateway's routes do not admit the namespace with the host name.
	ReasonNotAdmitted = "NotAdmitted"
	// ReasonRouteClaimed (False): another exposure has the same path under the same host name, or one of another service has
	// a path template that takes some of the same paths. Who is served already comes first (status.exposures), then the
	// older object. The message names it.
	ReasonRouteClaimed = "RouteClaimed"
	// ReasonTooManyPaths (False): the exposure has more paths than status.exposures can record.
	ReasonTooManyPaths = "TooManyPaths"
	// ReasonJWTUnknown (False): the gateway has no jwt of the name in auth.jwt.
	ReasonJWTUnknown = "JWTUnknown"
	// ReasonMethodUnknown (False): the descriptor set lacks a method, or its google.api.http option where it is needed.
	ReasonMethodUnknown = "MethodUnknown"
	// ReasonGatewayFull (False): the routes of the gateway would become too large with the exposure, or lead to too many ports.
	ReasonGatewayFull = "GatewayFull"
)

// Reasons of the condition Programmed.
const (
	// ReasonProgrammed (True): every proxy has ACKed the current config.
	ReasonProgrammed = "Programmed"
	// ReasonNoProxies (Unknown): no proxy of the object is connected.
	ReasonNoProxies = "NoProxies"
	// ReasonPending (False): proxies have not ACKed the current config yet.
	ReasonPending = "Pending"
	// ReasonNACKed (False): a proxy refused a resource, and keeps its last good version. The message holds its words and the
	// resources concerned.
	ReasonNACKed = "NACKed"
	// ReasonCertificateMissing (False): a listener of the gateway shows no certificate. The message names its Secret. The other
	// listeners take connections.
	ReasonCertificateMissing = "CertificateMissing"
)

// Reasons of any condition.
const (
	// ReasonNotApplicable (True): the condition has no subject here, such as Exposed without expose.
	ReasonNotApplicable = "NotApplicable"
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

// AnnotationReleaseDeletions on the Namespace that the manager runs in lets the entries go that the deletion brake holds
// back. Its value is the time at which the brake tripped, as the condition and the event of it have it, so that it is good
// for that once.
const AnnotationReleaseDeletions = "mesh.jia.app/release-deletions"

// AnnotationAdoptEntries on a ServiceIdentity names entries that somebody else has made in SPIRE, by hand or by another
// controller, and that its own are to take the place of: their entry IDs, separated by commas, or * for all that have its
// SPIFFE ID. They go when its own have been there for the grace time, and only where its own are for the same workloads.
const AnnotationAdoptEntries = "mesh.jia.app/adopt-entries"

// FinalizerWorkload keeps a deleted MeshService or MeshGateway until its pods, its proxies' config and its entries are gone,
// in this order: a pod that drains needs its identity to the end.
const FinalizerWorkload = "mesh.jia.app/workload"

// Labels that the operator sets on what it makes.
const (
	// LabelService is, on pods and objects of a MeshService, its name. NetworkPolicies of peers select pods by it.
	LabelService = "mesh.jia.app/service"
	// LabelGateway is, on pods and objects of a MeshGateway, its name.
	LabelGateway = "mesh.jia.app/gateway"
)

// FinalizerEntries keeps a deleted ServiceIdentity until its entries are gone from the SPIRE server.
const FinalizerEntries = "mesh.jia.app/spire-entries"
