#!/bin/sh
# An arbitration_command (heartbeat_error_action = 'command'): determines whether the other server, which does not respond, is
# down. Exit status 0: it is down and stays down, and this server continues alone. Any other: it is not down, or its state is
# unknown, and nothing is done.
#
#   $1  this server     $2  the server that does not respond     $3  primarycenter
#
# This script queries the power supply with IPMI: a server without power acknowledges no commits. A server that does not
# respond to ping may still be running, because only the network may have failed. If in doubt, return 1. If fencing_command
# (samples/fence.sh) is set, it is run after this command has returned 0. The time limit is arbitration_command_timeout (30 s).
set -eu

case $2 in
    server1) bmc=192.0.2.201 ;;
    server2) bmc=192.0.2.202 ;;
    *) echo "no management controller is configured for \"$2\""; exit 1 ;;
esac
password=${FENCE_PASSWORD_FILE:-/usr/local/lib/mc/fence.password}    # mode 0600

status=$(ipmitool -I lanplus -H "$bmc" -U fence -f "$password" chassis power status)
echo "$2: $status"
case $status in
    *"is off") exit 0 ;;
    *) exit 1 ;;
esac
