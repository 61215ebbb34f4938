#!/bin/sh
# An arbitration_command (heartbeat_error_action = 'command'): says whether the other server, which is silent, is dead.
# Exit status 0: it is dead and stays so, continue alone. Any other: it is not, or nobody knows; nothing is done.
#
#   $1  who calls     $2  who is silent     $3  primarycenter
#
# This one asks the power supply, by IPMI: a server without power acknowledges nothing. That a server answers no ping
# says nothing: the network may be all that is broken. Where in doubt, say 1. fencing_command (samples/fence.sh), where
# it is set, is called after this one has said 0. It must end within arbitration_command_timeout (30 s).
set -eu

case $2 in
    server1) bmc=192.0.2.201 ;;
    server2) bmc=192.0.2.202 ;;
    *) echo "no management controller is known for \"$2\""; exit 1 ;;
esac
password=${FENCE_PASSWORD_FILE:-/usr/local/lib/mc/fence.password}    # mode 0600

status=$(ipmitool -I lanplus -H "$bmc" -U fence -f "$password" chassis power status)
echo "$2: $status"
case $status in
    *"is off") exit 0 ;;
    *) exit 1 ;;
esac
