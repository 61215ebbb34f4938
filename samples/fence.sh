#!/bin/sh
# A fencing_command for hosts whose power is controlled by IPMI (or any interface that ipmitool supports): switches off the
# other server and verifies that it is off. Edit it for your hosts, and test it before you need it:
#
#   install -m 700 samples/fence.sh /usr/local/lib/mc/fence.sh      # owned by the instance administrator user
#   MC_REASON=test /usr/local/lib/mc/fence.sh command switch server2 server1 primarycenter; echo $?
#
# The controller runs it before its server continues alone, and the arbiter before it allows a server to continue alone:
#
#   $1  monitor (a failure was seen) or command (mc_ctl ... --force)
#   $2  switch (the standby is to be promoted) or detach (the primary is to continue without it)
#   $3  the caller     $4  the server to be fenced     $5  primarycenter
#
# Environment: MC_TERM, MC_REASON, MC_DATA_DIRECTORY. Its output is written to the log. Exit status 0: the target is fenced
# and stays fenced (it must not restart automatically). Any other: nothing is done. If it does not end within
# fencing_command_timeout (20 s), it is killed and counts as failed. It may be run again for a target that is off.
set -eu

mode=$1 operation=$2 target=$4

# The address of each server's management controller, by its identifier in network.conf.
case $target in
    server1) bmc=192.0.2.201 ;;
    server2) bmc=192.0.2.202 ;;
    *) echo "no management controller is configured for \"$target\""; exit 1 ;;
esac
user=fence
password=${FENCE_PASSWORD_FILE:-/usr/local/lib/mc/fence.password}    # mode 0600

power() {
    ipmitool -I lanplus -H "$bmc" -U "$user" -f "$password" chassis power "$1"
}

echo "$mode $operation: switching off $target ($bmc): ${MC_REASON:-}"
power off >/dev/null || :                   # it may already be off

tries=15
while [ "$tries" -gt 0 ]; do
    case $(power status) in
        *"is off") echo "$target is off"; exit 0 ;;
    esac
    tries=$((tries - 1))
    sleep 1
done
echo "$target is still on"
exit 1
