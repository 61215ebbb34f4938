#!/bin/sh
# An address that follows the primary ("virtual IP"): clients know this one alone. On both servers:
#
#   install -m 755 samples/vip.sh /usr/local/lib/mc/vip.sh      # put in your address, device and paths below
#
# and in ID.conf:   post_switch_command = '/usr/local/lib/mc/vip.sh'
#                   post_attach_command = '/usr/local/lib/mc/vip.sh'
#
# It is called, and does, as follows; each can be repeated without harm.
#
#   vip.sh NEW_PRIMARY primarycenter                post_switch_command: takes the address, and tells the neighbours
#   vip.sh CALLER primary STANDBY primarycenter     post_attach_command: the same
#   vip.sh CALLER standby STANDBY primarycenter     post_attach_command: gives the address away, if it is still here
#   vip.sh check                                    takes it or gives it away, as the controller of this host says
#
# The old primary runs no command after a failover: its host may be gone. Where only the instance has died, the address is
# still there, until the server is a standby again or is told otherwise. So run "vip.sh check" on both servers every few
# seconds, as the instance administrator user, by a systemd timer or by a loop under a service:
#
#   while sleep 3; do /usr/local/lib/mc/vip.sh check; done
#
# It also puts the address back after a reboot of the primary's host. Meanwhile the neighbours that were told last send to
# the new primary. Where the old primary's controller does not answer, check changes nothing: that host is to be fenced
# (samples/fence.sh).
#
# Only root changes addresses. With sudo, put these lines, and no more, into /etc/sudoers.d/mc-vip, by visudo -f:
#
#   postgres ALL=(root) NOPASSWD: /usr/sbin/ip address replace 192.0.2.50/32 dev eth0
#   postgres ALL=(root) NOPASSWD: /usr/sbin/ip address delete 192.0.2.50/32 dev eth0
#   postgres ALL=(root) NOPASSWD: /usr/bin/arping -q -U -c 2 -I eth0 192.0.2.50
#
# (with IPv6 without the last: set net.ipv6.conf.eth0.ndisc_notify = 1), or leave "root" empty and give the service
# AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW. The programs are of the packages sudo, iproute2 and iputils-arping.
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
    is_here || echo "taking $address on $device: ${MC_REASON:-}"
    $root ip address replace "$address" dev "$device"
    case $plain in
        *:*) ;;
        *) $root arping -q -U -c 2 -I "$device" "$plain" || echo "the neighbours could not be told of $plain" ;;
    esac
}

give_away() {
    if is_here; then
        echo "giving $address away from $device: ${MC_REASON:-}"
        $root ip address delete "$address" dev "$device"
    fi
}

# By the controller's view of the pair, not by what the instance does: one that is started again is still the primary.
check() {
    status=$($mc_ctl status -M "$mc" --format json) || { echo "no controller answers; nothing is changed"; exit 0; }
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
