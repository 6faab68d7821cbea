# The commands of this repository; `make help` lists them. Every tool is pinned in hack/tools and built once, into a cache
# outside the checkout; each target builds only the tools that it needs.
SHELL := /usr/bin/env bash -o pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# BIN is where the project's own binaries go.
BIN ?= $(CURDIR)/bin
# IMG is the manager's image, for deploy.
IMG ?= paymesh/manager:dev
# CLUSTER names the local cluster that demo and e2e use.
CLUSTER ?= paymesh
# TESTFLAGS go to every go test of make test, after -p: TESTFLAGS='-race -run Grant -v'. Empty, it leaves the race detector out.
TESTFLAGS ?= -race
# BENCH_OUT is what bench-identity writes, as .json and .svg. Its settings are BENCH_ENTRIES (1000,10000,50000), BENCH_IDENTITIES,
# BENCH_SAMPLES, BENCH_RESTARTS, BENCH_IDLE and others: see test/bench/identity/settings.go.
BENCH_OUT ?= $(CURDIR)/docs/bench/identity
# PARALLEL is how many packages are tested at a time; each may run an API server and a SPIRE server, and mostly waits for them.
PARALLEL ?= 3

TOOLS := hack/tools/tools.sh
PAYMESH_BIN_DIR := $(shell $(TOOLS) --dir)
export PAYMESH_BIN_DIR
tool = $(PAYMESH_BIN_DIR)/$(1)

# What the tests without root run on, and what the cluster runs on.
TEST_TOOLS := etcd kube-apiserver spire-server spire-agent envoy kustomize
CLUSTER_TOOLS := etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl \
  containerd containerd-shim-runc-v2 ctr bridge loopback host-local portmap coredns kube-router spire-server spire-agent envoy kustomize

go_build = CGO_ENABLED=0 go build $(if $(1),-C $(1)) -trimpath -buildvcs=false -ldflags '-s -w'
MODULES := . hack/cluster test/bench/plot

##@ General

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make <target>\n"} \
	  /^[a-zA-Z0-9_-]+:.*?##/ {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)}' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## Build or fetch every pinned tool.
	@$(TOOLS)

.PHONY: cluster-tools
cluster-tools: ## Build the tools that the cluster needs.
	@$(TOOLS) $(CLUSTER_TOOLS)

##@ Try it

.PHONY: demo
demo: ## Start a cluster on this machine (root), deploy everything, and show what it does.
	@hack/demo/demo.sh up $(CLUSTER)

.PHONY: demo-down
demo-down: ## Remove the demo's cluster and leave the machine as it was.
	@hack/demo/demo.sh down $(CLUSTER)

##@ Develop

.PHONY: build
build: ## Build the project's binaries into bin/.
	@mkdir -p '$(BIN)'
	@$(call go_build) -o '$(BIN)/' ./cmd/...

.PHONY: build-cluster
build-cluster: ## Build hack/cluster into bin/.
	@mkdir -p '$(BIN)'
	@$(call go_build,hack/cluster) -o '$(BIN)/cluster' .

.PHONY: build-demo
build-demo: ## Build the demo's workload, what it asks with and what makes its keys, into bin/.
	@mkdir -p '$(BIN)'
	@$(call go_build) -o '$(BIN)/' ./hack/demo/probe ./hack/demo/keys

.PHONY: proto
proto: ## Lint the protos, and generate their Go and the samples' descriptor set.
	@$(TOOLS) buf protoc-gen-go protoc-gen-go-grpc
	@hack/proto.sh $(PAYMESH_BIN_DIR)

.PHONY: generate
generate: proto ## Generate the deep copies of the kinds, and the Go of the protos.
	@$(TOOLS) controller-gen
	@$(call tool,controller-gen) object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: ## Generate CRDs and RBAC from the markers.
	@$(TOOLS) controller-gen
	@$(call tool,controller-gen) crd:maxDescLen=400 paths=./api/... output:crd:dir=config/crd/bases
	@$(call tool,controller-gen) rbac:roleName=paymesh-manager paths=./controllers/... output:rbac:dir=config/rbac

.PHONY: kustomizations
kustomizations: ## Check that every kustomization builds.
	@$(TOOLS) kustomize
	@hack/verify/kustomizations.sh $(call tool,kustomize)

.PHONY: goldens
goldens: ## Rewrite the golden files of internal/testdata, and delete those that no stage writes.
	@go test ./internal/mesh ./internal/spire ./internal/workload ./internal/xds -update

.PHONY: fmt
fmt: ## Format the code.
	@$(TOOLS) golangci-lint
	@for m in $(MODULES); do (cd $$m && $(call tool,golangci-lint) fmt -c $(CURDIR)/.golangci.yml) || exit 1; done

.PHONY: lint
lint: ## Lint the code, with the import directions of the tree.
	@$(TOOLS) golangci-lint
	@for m in $(MODULES); do (cd $$m && $(call tool,golangci-lint) run --allow-parallel-runners -c $(CURDIR)/.golangci.yml ./...) || exit 1; done

.PHONY: imports
imports: ## Check the import directions from what is really linked.
	@hack/verify/imports.sh

.PHONY: tidy
tidy: ## Tidy go.mod here, in hack/cluster and in test/bench/plot (those of hack/tools when a version is raised: see CONTRIBUTING.md).
	@for m in $(MODULES); do (cd $$m && go mod tidy) || exit 1; done

.PHONY: verify
verify: ## All of generate to tidy: then the tree is as it was, or this is red.
	@hack/verify/verify.sh

.PHONY: test
test: ## Test without root: unit, golden, API server, SPIRE.
	@$(TOOLS) $(TEST_TOOLS)
	go test -p $(PARALLEL) $(TESTFLAGS) $$(go list ./... | grep -v '/test/e2e$$')
	cd hack/cluster && go test $(TESTFLAGS) ./...
	cd test/bench/plot && go test -count=1 $(TESTFLAGS) ./... # what it reads is outside its module, where the cache of results does not look

.PHONY: e2e
e2e: ## Test on a real single-node cluster (root).
	@hack/e2e.sh

.PHONY: bench-reconcile
bench-reconcile: ## Measure what a reconcile costs at 100 and at 10,000 identities.
	@$(TOOLS) $(TEST_TOOLS)
	go test -run "^$$" -bench Reconcile -benchtime 500x ./test/bench/

.PHONY: bench-identity
bench-identity: ## Measure the identity side on the real parts, with up to 50,000 foreign entries in SPIRE (20 minutes; BENCH_ENTRIES=1000 for a look).
	@$(TOOLS) etcd kube-apiserver spire-server spire-agent
	@mkdir -p '$(BIN)'
	@$(call go_build) -o '$(BIN)/' ./cmd/manager
	@go build -o '$(BIN)/bench' ./test/bench/identity # with its paths: the lab finds the CRDs by them
	@'$(BIN)/bench' -manager '$(BIN)/manager' -out '$(BENCH_OUT).json'
	@cd test/bench/plot && go run . '$(BENCH_OUT).json' '$(BENCH_OUT).svg'

.PHONY: bench-build
bench-build: ## Measure what building the model of one key costs with 300 services at its gateway, with 200 that it does not admit, and with one far too large.
	go test -run "^$$" -bench Build -benchmem ./internal/mesh/

##@ Deploy

.PHONY: deploy
deploy: ## Deploy the operator to the current kubectl context, with the image IMG.
	@$(TOOLS) kustomize
	@hack/deploy.sh $(call tool,kustomize) config/default $(IMG) | kubectl apply --server-side -f -

.PHONY: deploy-spire
deploy-spire: ## Deploy SPIRE to the current kubectl context; beside its server runs a container of the image IMG.
	@$(TOOLS) kustomize
	@hack/deploy.sh $(call tool,kustomize) config/spire $(IMG) | kubectl apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove the operator and its kinds from the current kubectl context (see the README first).
	@$(TOOLS) kustomize
	@hack/undeploy.sh $(call tool,kustomize)
