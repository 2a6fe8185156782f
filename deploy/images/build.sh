#!/usr/bin/env bash
# make images: an image for each service (or those named), without a registry, into deploy/images/build.
# The base is made from Debian's packages; BASE=IMAGE takes another one; FRESH=1 builds all anew.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8

DOCKERFILE=deploy/images/Dockerfile
OUT=deploy/images/build
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
TRUST=/etc/ssl/certs/ca-certificates.crt
SERVICES=("$@")
[ $# -gt 0 ] || mapfile -t SERVICES < <(sed -n 's/^FROM .* AS service-//p' "$DOCKERFILE" && echo nats)

fail() { printf 'cirri images: %s\n' "$1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "must run as root (sudo make images), because it mounts file systems."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() { "$@" >"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "$1 failed, see above."; }; }

missing=()
for package in buildah mmdebstrap; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing from Debian: ${missing[*]}"
  quietly apt-get install -y --no-install-recommends "${missing[@]}"
fi

# --- the base ------------------------------------------------------------------------------------

base() {  # what debian:12-slim is: the smallest Debian with apt, without manuals and translations
  local container
  mmdebstrap --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    bookworm "$OUT/base.tar" </dev/null
  container=$(buildah from scratch)
  buildah add -q "$container" "$OUT/base.tar" /
  buildah config --cmd bash "$container"
  buildah commit -q --rm "$container" "$1"
  rm -f "$OUT/base.tar"
}

mkdir -p "$OUT"
if [ -z "${BASE:-}" ]; then
  BASE=localhost/cirri/base:12
  if [ -n "${FRESH:-}" ] || ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
    echo "making the base from Debian's packages"
    export -f base; export OUT
    quietly bash -euc 'base "$1"' base "$BASE"
  fi
fi

# --- images --------------------------------------------------------------------------------------

rm -rf "$OUT/layout" "$OUT/cirri-images.tar"
for service in "${SERVICES[@]}"; do
  began=$SECONDS
  target=image; [ "$service" != nats ] || target=nats
  arguments=(--build-arg "BASE=$BASE" --build-arg "SERVICE=$service" --build-arg "VERSION=$VERSION")
  [ ! -s "$TRUST" ] || arguments+=(--secret "id=trust,src=$TRUST")
  # No network of its own and no isolation but a root: what builds here is our own.
  quietly buildah build --isolation chroot --network host --layers ${FRESH:+--no-cache} \
    --file "$DOCKERFILE" --ignorefile .dockerignore --target "$target" "${arguments[@]}" --tag "cirri/$service:$VERSION" .
  quietly buildah push "cirri/$service:$VERSION" "oci:$OUT/layout:cirri/$service:$VERSION"
  echo "built cirri/$service:$VERSION in $((SECONDS - began)) s"
  FRESH=
done
python3 deploy/images/archive.py "$OUT/layout" "$OUT/cirri-images.tar"
