#!/bin/sh
# million.sh COMMAND ARGS...: runs the command in a network namespace of its own, whose table of established connections
# has a bucket for each of the two million sockets (a million connections with both ends on this machine). The table of
# the machine has 262,144 on one of 24 GiB, and then every packet walks a chain of eight sockets: an eighth of all
# processor time. A server of a million alone is better off with thash_entries=4194304 on the kernel's command line, too:
# mqgate doctor says so.
#
# It takes root. The one setting that it changes is that of new namespaces, and it is put back.
set -eu
setting=/proc/sys/net/ipv4/tcp_child_ehash_entries
if [ "$(id -u)" != 0 ] || [ ! -w "$setting" ] || ! unshare --net true; then
	echo "million.sh: no right to make a network namespace (root has it), or no $setting: running without one" >&2
	exec "$@"
fi
before=$(cat "$setting")
trap 'echo "$before" >"$setting"' EXIT
trap 'exit 1' INT TERM
echo 4194304 >"$setting"
unshare --net sh -c 'ip link set lo up && exec "$@"' million.sh "$@"
