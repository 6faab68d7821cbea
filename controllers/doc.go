// Package controllers reconciles the kinds of mesh.jia.app: it reads a key and its neighbours, has pure code decide, writes what
// came out and reports what is true. There are two parts, which meet in the ServiceIdentity alone:
//
//   - identity_*.go have SPIRE hold the entries of ServiceIdentities and nodes (AddIdentities, in identity.go): identity_world.go
//     reads, identity_apply.go writes, identity_judge.go reports, identity_triggers.go says whom an event wakes.
//   - mesh_*.go run MeshServices and MeshGateways and give their proxies what they need (AddMesh, in mesh.go): mesh_world.go
//     reads, mesh_deployer.go writes, mesh_judge.go reports, mesh_triggers.go says whom an event wakes.
//
// Files without a prefix have what both need: cache.go what the cache keeps, status.go how a status is written, finalizer.go
// what keeps an object until all is taken away, triggers.go what the triggers of both are made of.
package controllers
