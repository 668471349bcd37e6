#!/bin/bash
# e2e.sh [MANIFEST]: deploy, use, restart under load, roll back, and clean up, on whatever cluster
# and namespace kubectl points at. It needs:
#   - kubectl, curl, and rights on that namespace, which must not hold a Secret `database`
#   - DB_URI: a PostgreSQL that the pods can reach
#   - the image that MANIFEST (deployment.yml) names, where the nodes can pull it
#   - a way to the Service: the address of its load balancer, or, where there is none, the nodes'
#     own addresses, as with kind. (`kubectl port-forward` is tied to one pod, and would break.)
set -euo pipefail
manifest=${1:-deployment.yml}
: "${DB_URI:?set DB_URI to a PostgreSQL that the pods can reach}"
work=$(mktemp -d)

clean() {
    rm -f "$work/go"
    kubectl delete --ignore-not-found --wait=false -f "$manifest" >/dev/null || true
    kubectl delete --ignore-not-found secret database >/dev/null || true
    rm -rf "$work"
}
trap clean EXIT

say() { echo "== $*"; }

expect() { # STATUS curl-options…
    local wanted=$1 status
    shift
    status=$(curl -s -o "$work/body" -w '%{http_code}' --max-time 10 "$@")
    [ "$status" = "$wanted" ] || { echo "got $status, not $wanted: $*" >&2; cat "$work/body" >&2; exit 1; }
}

say "secret and manifests"
kubectl create secret generic database --from-literal="DB_URI=$DB_URI"
kubectl apply -f "$manifest"
kubectl rollout status deployment/revolut --timeout=5m

say "address"
address=$(kubectl get service revolut -o \
    'jsonpath={.status.loadBalancer.ingress[0].hostname}{.status.loadBalancer.ingress[0].ip}')
if [ -n "$address" ]; then
    url=http://$address
else
    node=$(kubectl get nodes -o \
        'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
    url=http://$node:$(kubectl get service revolut -o 'jsonpath={.spec.ports[0].nodePort}')
fi
until curl -sf --max-time 5 "$url/health/ready" >/dev/null; do sleep 1; done

say "put and get"
expect 204 -X PUT -d '{"dateOfBirth": "1990-05-17"}' "$url/hello/e2e"
expect 200 "$url/hello/e2e"
grep -q 'Hello, e2e! ' "$work/body"
expect 404 "$url/hello/e2e-nobody"
expect 400 -X PUT -d '{"dateOfBirth": "tomorrow"}' "$url/hello/e2e"

say "restart under load"
touch "$work/go"
(
    n=0 failed=0
    while [ -e "$work/go" ]; do
        n=$((n + 2))
        curl -sf --max-time 10 -X PUT -d '{"dateOfBirth": "1990-05-17"}' "$url/hello/e2e" ||
            failed=$((failed + 1))
        curl -sf --max-time 10 "$url/hello/e2e" >"$work/answer" || failed=$((failed + 1))
    done
    echo "$n $failed" >"$work/result"
) &
load=$!
kubectl rollout restart deployment/revolut
kubectl rollout status deployment/revolut --timeout=5m
rm "$work/go"
wait "$load"
read -r n failed <"$work/result"
echo "$n requests, $failed failed"
[ "$failed" = 0 ]

say "roll back"
kubectl rollout undo deployment/revolut
kubectl rollout status deployment/revolut --timeout=5m
expect 200 "$url/hello/e2e"
say "passed"
