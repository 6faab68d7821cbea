#!/usr/bin/env bash
# The demo: a real cluster on this machine, a payment that crosses the mesh in it, and every refusal on the way, each line
# with what was asked and what came back. It ends with an error where the answer is not what it must be.
#   hack/demo/demo.sh up NAME | down NAME
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command=${1:-} name=${2:-}
[ -n "$name" ] || { echo "usage: hack/demo/demo.sh up|down NAME" >&2; exit 2; }

if [ "$command" = down ]; then exec hack/stack.sh down "$name"; fi

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
say() { printf '\n'; bold "# $*"; }
# quoted WORD...: the words as one types them.
quoted() {
  local word text=''
  for word; do [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'$word'"; text+="${text:+ }$word"; done
  printf '%s' "$text"
}
# show COMMAND...: what was asked, and what came back.
show() { bold "\$ $(quoted "$@")"; "$@" | awk 'NF || !blank {print} {blank = !NF}'; }
# expect TEXT COMMAND...: shows the same; the text must be in what came back, whether the command succeeds or not.
expect() {
  local expected=$1 said; shift
  bold "\$ $(quoted "$@")"
  said=$("$@" 2>&1) || true
  printf '%s\n' "$said"
  [[ $said == *"$expected"* ]] || { echo "demo: this must be in the answer: $expected" >&2; exit 1; }
}
# count URL PATTERN: the sum of a page's metrics that the pattern fits; where there is none, 0.
count() {
  local page
  page=$(kubectl get --raw "$1") && awk -v pattern="$2" '$0 ~ pattern {sum += $2} END {print sum + 0}' <<<"$page"
}
# more_by N BEFORE NOW: a count has grown by N at least.
more_by() {
  [[ $2 =~ ^[0-9]+$ && $3 =~ ^[0-9]+$ ]] || { echo "demo: not two counts: '$2' and '$3'" >&2; exit 1; }
  [ "$3" -ge $(($2 + $1)) ] || { echo "demo: it was $2 before and is $3: it must be $1 more" >&2; exit 1; }
  echo "demo: it was $2 before these $1"
}
# until_true SECONDS WHAT COMMAND...: polls.
until_true() {
  local limit=$1 what=$2 start=$SECONDS; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $((SECONDS - start)) -lt "$limit" ] || { echo "demo: $what: not within $limit s" >&2; exit 1; }
    sleep 0.3
  done
}

command -v curl >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends curl; } >/dev/null || { echo "demo: it asks with curl, which is not there: install it" >&2; exit 1; }
start=$SECONDS
hack/stack.sh up "$name"
KUBECONFIG=$(bin/cluster --name "$name" kubeconfig); export KUBECONFIG
keys=$(hack/stack.sh keys "$name")
PATH=$PAYMESH_BIN_DIR:$PWD/bin:$PATH

background=()
trap 'for process in "${background[@]}"; do kill "$process" 2>/dev/null || true; done' EXIT
# forward NAMESPACE OBJECT PORT: kubectl port-forward, until the demo ends; forwarded is the port on this machine.
forward() {
  local log; log=$(mktemp)
  bold "\$ kubectl port-forward -n $1 $2 $3 &"
  kubectl port-forward -n "$1" "$2" ":$3" >"$log" & background+=($!)
  until_true 20 "a port of $2" grep -q '^Forwarding from 127' "$log"
  forwarded=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$log"); rm -f "$log"
}
# pay TOKEN KEY CENTS: a payment from outside. TOKEN is a file in the folder of the keys, or none. HTTP/1.1, since curl 7.88,
# which Debian 12 has, loses an answer by HTTP/2 that comes before it has sent the body.
pay() {
  local authorization=(); [ "$1" = none ] || authorization=(-H "Authorization: Bearer $(<"$keys/$1")")
  curl -sS -i --http1.1 --max-time 10 --cacert "$keys/ca.crt" --resolve "pay.example.com:$port:127.0.0.1" "https://pay.example.com:$port/v1/payments" \
    "${authorization[@]}" -H "Idempotency-Key: $2" -H 'Content-Type: application/json' \
    -d "{\"merchant_reference\": \"$2\", \"payer_user_id\": \"user_123\", \"amount\": {\"currency_code\": \"EUR\", \"minor_units\": \"$3\"}}" |
    tr -d '\r' | awk '/^HTTP|^idempotent/ || body {print} /^$/ {body = 1}'
}
# log_of NAMESPACE OBJECT CONTAINER PATTERN...: the last line of a log that has all of the patterns, once it is there.
log_of() {
  local namespace=$1 object=$2 container=$3 limit=$((SECONDS + 20)) lines pattern; shift 3
  bold "\$ kubectl logs -n $namespace $object -c $container | grep $(quoted "$1") | tail -n 1"
  while :; do
    lines=$(kubectl logs -n "$namespace" "$object" -c "$container" --tail=-1)
    for pattern; do lines=$(grep -e "$pattern" <<<"$lines" || true); done
    [ -z "$lines" ] || break
    [ "$SECONDS" -lt "$limit" ] || { echo "demo: no such line: $*" >&2; exit 1; }
    sleep 0.3
  done
  tail -n 1 <<<"$lines"
}

say "A payment service behind a gateway, and whom it asks: kubectl apply"
show kubectl apply -k config/samples
kubectl apply -f hack/demo/callers.yaml >/dev/null
show kubectl wait --for=condition=Ready meshservices,meshgateways --all -A --timeout=120s
echo "demo: ready after $((SECONDS - start)) s"
show kubectl get meshservices,serviceidentities,meshgateways -A

port=$(bin/cluster --name "$name" forward 0:public.edge.svc.cluster.local:443 | sed -n 's/.*forward 127.0.0.1:\([0-9]*\) .*/\1/p')
say "pay TOKEN KEY CENTS stands for: curl -i --http1.1 --cacert ca.crt https://pay.example.com/v1/payments -H \"Authorization: Bearer \$(cat TOKEN)\" -H 'Idempotency-Key: KEY' -d ..."
say "A payment: HTTPS, a JWT, the gateway, two sidecars, the contact service, the store"
expect '10.50 EUR' pay token order-1 1050
say "The same key again: the same payment, and nothing is taken"
expect 'idempotent-replayed: true' pay token order-1 1050
say "The same key with another amount"
expect IDEMPOTENCY_KEY_REUSED pay token order-1 2000
say "No JWT, an expired one, one for another audience; which check failed stands in the gateway's log"
for token in none token-expired token-other-audience; do expect '401 Unauthorized' pay "$token" order-2 1050; done
for failure in Jwt_is_missing Jwt_is_expired Audiences_in_Jwt_are_not_allowed; do log_of edge deployment/public proxy "$failure" '"code":401'; done

# pod_of NAMESPACE SERVICE FIELD: of the service's pod.
pod_of() { kubectl get pods -n "$1" -l "mesh.jia.app/service=$2,mesh.jia.app/endpoint=true" -o "jsonpath={.items[0].$3}"; }
payment=payment-service.payments.svc:15443 contact=contact-service.people.svc:15443
say "A pod without identity, which the NetworkPolicy lets through to the payment service: no certificate, no call"
kubectl wait -n edge --for=condition=Ready pod/nobody --timeout=30s >/dev/null
expect Unavailable kubectl exec -n edge nobody -- /probe call --anonymous "$payment" payment.v1.PaymentService/GetPayment '{}'
log_of payments deployment/payment-service proxy '"log":"handshake"' PEER_DID_NOT_RETURN_A_CERTIFICATE
stats=/api/v1/namespaces/people/pods/$(pod_of people contact-service metadata.name):15090/proxy/stats/prometheus
refused="^envoy_http_rbac_denied.*inbound"
before=$(count "$stats" "$refused")
say "A pod with the payment service's labels and another service account: the NetworkPolicy lets it through, its SPIFFE ID is not allowed"
kubectl wait -n payments --for=condition=Ready pod/impostor serviceidentity/impostor --timeout=30s >/dev/null
expect PermissionDenied kubectl exec -n payments impostor -- /probe call "$contact" contact.v1.ContactService/GetUserInfo '{"user_id": "user_123"}'
log_of people deployment/contact-service proxy '"nearest_rule":"payments' spiffe://jia.app/ns/payments/sa/impostor GetUserInfo people/contact-service
say "A method that is not in allow, asked by the payment service's own sidecar"
forward payments deployment/payment-service 50051
expect PermissionDenied probe call --plaintext "127.0.0.1:$forwarded" contact.v1.ContactService/GetFamilyMembers '{"family_id": "family_456"}'
log_of people deployment/contact-service proxy '"nearest_rule":"payments' '"caller":"spiffe://jia.app/payment-service"' GetFamilyMembers people/contact-service
say "A metric counts the refusals"
bold "\$ kubectl get --raw $stats | grep $(quoted "$refused")"
kubectl get --raw "$stats" | grep -e "$refused"
more_by 2 "$before" "$(count "$stats" "$refused")"
say "A pod without those labels is stopped by the NetworkPolicy; what is open to everybody, it reaches"
kubectl wait -n payments --for=condition=Ready pod/outsider --timeout=30s >/dev/null
expect ': open' kubectl exec -n payments outsider -- /probe dial --wait 10s contact-service.people.svc:9090
expect ': refused' kubectl exec -n payments outsider -- /probe dial "$contact"
say "Around the sidecar, even from the node, nobody listens at the application's port: it is on loopback"
ip=$(pod_of payments payment-service status.podIP)
expect 'Connection refused' bin/cluster --name "$name" exec -- bash -c "</dev/tcp/$ip/8081"
say "The certificate that the payment service shows"
forward payments deployment/payment-service 15443
expect spiffe://jia.app/payment-service probe certificate "127.0.0.1:$forwarded"
say "What SPIRE holds for it: one entry for the node that runs the pod, under that node's alias"
expect 'spiffe://jia.app/payment-service' kubectl exec -n spire-system spire-server-0 -c spire-server -- /spire-server entry show \
  -spiffeID spiffe://jia.app/payment-service -socketPath /run/spire/server-socket/api.sock
say "How the payment service sees its own peers, and what its sidecar holds"
forward payments deployment/payment-service 9090
expect contact curl -sS "http://127.0.0.1:$forwarded/health/services"
forward payments deployment/payment-service 8500
expect people/contact-service/grpc curl -sS "http://127.0.0.1:$forwarded/config_dump?resource=dynamic_active_clusters&mask=version_info,cluster.name"

# switch DATA-PLANE: of the payment service, until it is Ready with it. Ready of the generation before does not count.
switch() {
  local since=$SECONDS generations='jsonpath={.metadata.generation} {.status.observedGeneration}'
  show kubectl patch meshservice -n payments payment-service --type=merge -p "{\"spec\":{\"dataPlane\":\"$1\"}}"
  until_true 30 "the operator's answer" sh -c "kubectl get meshservice -n payments payment-service -o '$generations' | awk '{exit \$1 != \$2}'"
  show kubectl wait -n payments --for=condition=Ready meshservice/payment-service --timeout=120s
  echo "demo: it was Ready after $((SECONDS - since)) s (its store has one writer: the old pod ends before the new one starts)"
}
say "One field makes the payment service speak mTLS itself: no Envoy beside it, and its rules are a file"
switch Library
expect app kubectl get pods -n payments -l mesh.jia.app/endpoint=true -o 'jsonpath={.items[*].spec.containers[*].name} {.items[*].spec.initContainers[*].name}{"\n"}'
expect 'idempotent-replayed: true' pay token order-1 1050
expect '10.50 EUR' pay token order-3 1050
switch Sidecar

say "An invalid object is refused, with what to write instead"
expect 'path must consist of segments' kubectl apply -f hack/demo/invalid.yaml
say "A path that nobody granted is not accepted, and the object says what an administrator would type"
show kubectl apply -f hack/demo/not-granted.yaml
until_true 30 "the verdict" sh -c 'kubectl get sid -n payments not-granted -o jsonpath="{.status.conditions}" | grep -q PathNotGranted'
expect 'kubectl annotate' kubectl get sid -n payments not-granted -o 'jsonpath={.status.conditions[?(@.type=="Accepted")].message}{"\n"}'
kubectl delete -f hack/demo/not-granted.yaml >/dev/null

say "Go on by hand"
cat <<TEXT
export KUBECONFIG=$KUBECONFIG
export PATH=$PAYMESH_BIN_DIR:$PWD/bin:\$PATH
curl -i --http1.1 --cacert $keys/ca.crt --resolve pay.example.com:$port:127.0.0.1 https://pay.example.com:$port/v1/payments \\
  -H "Authorization: Bearer \$(cat $keys/token)" -H 'Idempotency-Key: order-4' \\
  -d '{"merchant_reference": "order-4", "payer_user_id": "user_123", "amount": {"currency_code": "EUR", "minor_units": "1050"}}'
kubectl get msvc,mgw,sid -A -o wide
kubectl describe msvc -n payments payment-service
kubectl edit msvc -n people contact-service # allow contact.v1.ContactService/GetFamilyMembers, and ask again
kubectl logs -n people deployment/contact-service -c proxy
bin/cluster --name $name status        # what runs, and where its logs are
make demo-down CLUSTER=$name           # leaves the machine as it was
TEXT
