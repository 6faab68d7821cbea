# The images, one a target: payment, people (the contact, family and document services) and, without --target, the manager.
# The stages call the Makefile's own targets, the same that make the images of hack/cluster.
ARG GO_VERSION=1.26
FROM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build BIN=/out

FROM gcr.io/distroless/static-debian12:nonroot AS payment
COPY --from=build /out/payment /
USER 65532:65532
ENTRYPOINT ["/payment"]

FROM gcr.io/distroless/static-debian12:nonroot AS people
COPY --from=build /out/people /
USER 65532:65532
ENTRYPOINT ["/people"]

FROM gcr.io/distroless/static-debian12:nonroot AS manager
COPY --from=build /out/manager /out/spire-bootstrap /
USER 65532:65532
ENTRYPOINT ["/manager"]
