#!/bin/bash
# e2e.sh [MANIFEST [PREVIOUS]]: deploy, use, restart under load, roll back under load, and clean up, on
# whatever cluster and namespace kubectl points at. With PREVIOUS, the manifest of another release,
# that one is deployed, and upgraded to MANIFEST in place of the restart: then the roll back is one
# from release to release. It needs:
#   - kubectl, curl, and rights on that namespace, which must not hold `revolut` or `database` yet
#   - DB_URI: a PostgreSQL that the pods can reach; the user `e2e` stays in it, and so does the newer
#     schema
#   - the images that the manifests (deployment.yml) name, where the nodes can pull them
#   - a way to the Service: the address of its load balancer, or, where there is none, the nodes'
#     own addresses, as with kind. (`kubectl port-forward` is tied to one pod, and would break.)
set -euo pipefail
manifest=${1:-deployment.yml}
previous=${2:-}
first=${previous:-$manifest}
clients=4
: "${DB_URI:?set DB_URI to a PostgreSQL that the pods can reach}"

say() { echo "== $*"; }
stop() {
    echo "e2e.sh: $*" >&2
    exit 1
}

images() { sed -n 's/^ *image: //p' "$1" | sort -u; }

for file in "$manifest" "$first"; do
    [ -r "$file" ] || stop "there is no $file: make org=… upload-prod writes it"
done
[ -z "$previous" ] || [ "$(images "$previous")" != "$(images "$manifest")" ] ||
    stop "$previous has the image of $manifest: name the manifest of another release"
# What was there before is not ours to clean up.
[ -z "$(kubectl get --ignore-not-found --output name -f "$manifest")" ] ||
    stop "this namespace has the service already; take another"
say "secret and manifests"
kubectl create secret generic database --from-literal="DB_URI=$DB_URI"

work=$(mktemp -d)
clean() {
    rm -f "$work/go"
    kubectl delete --ignore-not-found --wait=false -f "$manifest" >/dev/null || true
    kubectl delete --ignore-not-found secret database >/dev/null || true
    wait
    rm -rf "$work"
}
trap clean EXIT

expect() { # STATUS curl-options…
    local wanted=$1 status
    shift
    status=$(curl -s -o "$work/body" -w '%{http_code}' --max-time 10 "$@") || true
    [ "$status" = "$wanted" ] || { cat "$work/body" >&2 || true; stop "got $status, not $wanted: $*"; }
}

pods() { kubectl get pods --selector app.kubernetes.io/name=revolut --output name; }

image() { kubectl get deployment revolut -o 'jsonpath={.spec.template.spec.containers[0].image}'; }

# A new Deployment has one pod, until its autoscaler has looked at it: a change would be one of that
# pod alone.
wait_for_all_pods() {
    local least ready
    least=$(kubectl get horizontalpodautoscaler revolut --ignore-not-found \
        -o 'jsonpath={.spec.minReplicas}')
    for ((tries = 0; ; tries++)); do
        ready=$(kubectl get deployment revolut -o 'jsonpath={.status.readyReplicas}')
        [ "${ready:-0}" -lt "${least:-1}" ] || break
        [ "$tries" -lt 300 ] || stop "${ready:-0} pods are ready, and not ${least:-1}"
        sleep 1
    done
    echo "$ready pods are ready"
}

# Put and get over and over: 20 requests on each connection, one line with the status of each.
load() {
    while [ -e "$work/go" ]; do
        sleep 0.1
        curl -s -o /dev/null -w '%{http_code}\n' --max-time 60 -X PUT \
            -d '{"dateOfBirth": "1990-05-17"}' "$url/hello/e2e?n=[1-10]" \
            --next -s -o /dev/null -w '%{http_code}\n' --max-time 60 "$url/hello/e2e?n=[1-10]" || true
    done
}

# Change something while clients go on, until the last old pod is gone.
under_load() { # TITLE kubectl-arguments…
    local i n failed old
    say "$1 under load"
    shift
    wait_for_all_pods
    mapfile -t old < <(pods)
    touch "$work/go"
    for ((i = 0; i < clients; i++)); do
        load >"$work/statuses.$i" &
    done
    kubectl "$@"
    kubectl rollout status deployment/revolut --timeout=10m
    # The rollout does not wait for the old pods to end, and the load is here for just that.
    kubectl wait --for=delete --timeout=10m "${old[@]}"
    rm "$work/go"
    wait
    n=$(cat "$work"/statuses.* | wc -l)
    failed=$(cat "$work"/statuses.* | grep -cvE '^20[04]$' || true)
    echo "$n requests, $failed failed"
    [ "$n" -gt 0 ] && [ "$failed" = 0 ] ||
        stop "requests failed: $(cat "$work"/statuses.* | sort | uniq -c | xargs)"
}

kubectl apply -f "$first"
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
# A new load balancer's name may take minutes to be known.
for ((tries = 0; ; tries++)); do
    curl -sf -o /dev/null --max-time 5 "$url/health/ready" && break
    [ "$tries" -lt 300 ] || stop "nothing answers on $url"
    sleep 1
done

say "put and get"
expect 204 -X PUT -d '{"dateOfBirth": "1990-05-17"}' "$url/hello/e2e"
expect 200 "$url/hello/e2e"
grep -q 'Hello, e2e! ' "$work/body"
expect 404 "$url/hello/e2e-nobody"
expect 400 -X PUT -d '{"dateOfBirth": "tomorrow"}' "$url/hello/e2e"

before=$(image)
if [ -n "$previous" ]; then
    under_load upgrade apply -f "$manifest"
else
    under_load restart rollout restart deployment/revolut
fi
expect 200 "$url/hello/e2e"
under_load "roll back" rollout undo deployment/revolut
[ "$(image)" = "$before" ] || stop "rolled back to $(image), and not to $before"
expect 200 "$url/hello/e2e"
say "passed"
