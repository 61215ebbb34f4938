#!/bin/sh
# A fencing_command for hosts whose power is switched by IPMI (or anything that ipmitool talks to): cuts the power of
# the other server and makes sure that it is off. Edit it for your hosts, and try it before you need it:
#
#   install -m 700 samples/fence.sh /usr/local/lib/mc/fence.sh      # owned by the instance administrator user
#   MC_REASON=test /usr/local/lib/mc/fence.sh command switch server2 server1 primarycenter; echo $?
#
# The controller calls it before its server continues alone, and the arbiter before it lets a server do so:
#
#   $1  monitor (a failure was seen) or command (mc_ctl ... --force)
#   $2  switch (the standby is to be promoted) or detach (the primary is to continue without it)
#   $3  who calls     $4  who is to be fenced     $5  primarycenter
#
# and with MC_TERM, MC_REASON, MC_DATA_DIRECTORY in its environment. What it prints goes to the log. Exit status 0: the
# target is fenced and stays so (it must not come up by itself). Any other: nothing is done. It must end within
# fencing_command_timeout (20 s), else it is killed and has failed. It may be called again for a target that is off.
set -eu

mode=$1 operation=$2 target=$4

# The address of each server's management controller, by its identifier in network.conf.
case $target in
    server1) bmc=192.0.2.201 ;;
    server2) bmc=192.0.2.202 ;;
    *) echo "no management controller is known for \"$target\""; exit 1 ;;
esac
user=fence
password=${FENCE_PASSWORD_FILE:-/usr/local/lib/mc/fence.password}    # mode 0600

power() {
    ipmitool -I lanplus -H "$bmc" -U "$user" -f "$password" chassis power "$1"
}

echo "$mode $operation: cutting the power of $target ($bmc): ${MC_REASON:-}"
power off >/dev/null || :                   # it may be off already

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
