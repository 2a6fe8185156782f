#!/bin/sh
# A lab that lives as long as this process, for those who want one that they can end (Tiltfile):
#   deploy/lab.sh NAME [OPTION...]     options are those of `cirri lab up`
set -u
cd "$(dirname "$0")/.." || exit 1
cirri=.venv/bin/cirri
name=$1
shift
end() {
	trap '' TERM INT HUP
	"$cirri" lab down --name "$name"
	exit 0
}
trap end TERM INT HUP
"$cirri" lab down --name "$name" >/dev/null # what a killed one left
"$cirri" lab up --name "$name" "$@" || { "$cirri" lab down --name "$name"; exit 1; }
while :; do
	# A trap is served when the program in front has ended, or at once while waiting for one behind.
	sleep 3600 &
	wait $!
done
