# The manager's image. The stages call the Makefile's own targets, the same that make the images of hack/cluster.
ARG GO_VERSION=1.26
FROM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build BIN=/out

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/manager /out/spire-bootstrap /
USER 65532:65532
ENTRYPOINT ["/manager"]
