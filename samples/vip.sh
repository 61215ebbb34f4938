#!/bin/sh
# An address that follows the primary ("virtual IP"), to which clients connect. On both servers:
#
#   install -m 755 samples/vip.sh /usr/local/lib/mc/vip.sh      # set your address, device and paths below
#
# and in ID.conf:   post_switch_command = '/usr/local/lib/mc/vip.sh'
#                   post_attach_command = '/usr/local/lib/mc/vip.sh'
#
# Calls and their effects; each call can be repeated without harm:
#
#   vip.sh NEW_PRIMARY primarycenter                post_switch_command: adds the address, and announces it to the network
#   vip.sh CALLER primary STANDBY primarycenter     post_attach_command: the same
#   vip.sh CALLER standby STANDBY primarycenter     post_attach_command: removes the address, if it is still here
#   vip.sh check                                    adds or removes it, by the state of this host's controller
#
# The old primary runs no command after a failover, because its host may be down. If only the instance has failed, the host
# keeps the address until the server is a standby again or the address is removed. Therefore run "vip.sh check" on both
# servers every few seconds, as the instance administrator user, with a systemd timer or in a loop under a service:
#
#   while sleep 3; do /usr/local/lib/mc/vip.sh check; done
#
# It also adds the address after a restart of the primary's host. Until the old address is removed, other hosts send to the
# host that announced it last, the new primary. If the old primary's controller does not respond, "check" changes nothing;
# fence that host (samples/fence.sh).
#
# Only root can change addresses. With sudo, write only these lines to /etc/sudoers.d/mc-vip with visudo -f:
#
#   postgres ALL=(root) NOPASSWD: /usr/sbin/ip address replace 192.0.2.50/32 dev eth0
#   postgres ALL=(root) NOPASSWD: /usr/sbin/ip address delete 192.0.2.50/32 dev eth0
#   postgres ALL=(root) NOPASSWD: /usr/bin/arping -q -U -c 2 -I eth0 192.0.2.50
#
# With IPv6, omit the last line and set net.ipv6.conf.eth0.ndisc_notify = 1. Without sudo, leave "root" empty and set
# AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in the unit. The packages are sudo, iproute2 and iputils-arping.
set -eu

address=192.0.2.50/32
device=eth0
root='sudo -n'
mc=/srv/mc                              # the management directory
mc_ctl=/usr/local/bin/mc_ctl
PATH=/usr/sbin:/usr/bin:/sbin:/bin

plain=${address%/*}

is_here() {
    [ -n "$(ip -o address show dev "$device" to "$plain")" ]
}

take() {
    is_here || echo "adding $address to $device: ${MC_REASON:-}"
    $root ip address replace "$address" dev "$device"
    case $plain in
        *:*) ;;
        *) $root arping -q -U -c 2 -I "$device" "$plain" || echo "could not announce $plain to the network" ;;
    esac
}

give_away() {
    if is_here; then
        echo "removing $address from $device: ${MC_REASON:-}"
        $root ip address delete "$address" dev "$device"
    fi
}

# Uses the controller's view of the pair, not the state of the instance: a primary that is restarted remains the primary.
check() {
    status=$($mc_ctl status -M "$mc" --format json) || { echo "no controller responds; nothing is changed"; exit 0; }
    me=$(printf '%s\n' "$status" | sed -n 's/^ *"local_server": "\(.*\)",*$/\1/p')
    primary=$(printf '%s\n' "$status" | sed -n 's/^ *"primary": "\(.*\)",*$/\1/p')
    case $primary in
        '') ;;                          # no view yet
        "$me") is_here || take ;;
        *) give_away ;;
    esac
}

case ${1:-}/$#/${2:-} in
    check/1/*) check ;;
    */2/*) take ;;
    */4/primary) take ;;
    */4/standby) give_away ;;
    *) echo "usage: vip.sh check, or as a command of mc_hooks(5)"; exit 2 ;;
esac
