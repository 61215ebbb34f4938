#!/bin/sh
# Configures a PgBouncer on this host to connect to the primary, so that its clients need not distinguish the servers. On each
# server with a PgBouncer:
#
#   install -m 755 samples/pgbouncer.sh /usr/local/lib/mc/pgbouncer.sh      # set your servers and paths below
#
# in ID.conf:          post_switch_command = '/usr/local/lib/mc/pgbouncer.sh'
#                      post_attach_command = '/usr/local/lib/mc/pgbouncer.sh'
# in pgbouncer.ini:    %include /etc/pgbouncer/primary.ini
#                      (this script writes it, so that pgbouncer.ini itself has no [databases])
#
# Calls and their effects; each call can be repeated without harm:
#
#   pgbouncer.sh NEW_PRIMARY primarycenter                         post_switch_command: points to NEW_PRIMARY
#   pgbouncer.sh CALLER primary|standby STANDBY primarycenter      post_attach_command: points to the server that is not STANDBY
#   pgbouncer.sh check                                             points to the primary in the view of this host's controller
#
# Before the first start of PgBouncer, run "pgbouncer.sh check" to write the file. The old primary runs no command after a
# failover: run "pgbouncer.sh check" on both servers every few seconds, as for samples/vip.sh.
#
# It must run as the user of PgBouncer, who may use the console through the socket without a password (Debian: postgres).
# Programs: psql, timeout (coreutils).
set -eu

# The identifiers of the servers in network.conf, and the addresses of their instances.
one=server1
two=server2
where_is() {
    case $1 in
        "$one") echo "host=192.0.2.100 port=5432" ;;
        "$two") echo "host=192.0.2.110 port=5432" ;;
        *) echo "server \"$1\" is not configured in this script" >&2; return 1 ;;
    esac
}

file=/etc/pgbouncer/primary.ini
admin='host=/run/postgresql port=6432 user=pgbouncer dbname=pgbouncer'
mc=/srv/mc                              # the management directory
mc_ctl=/usr/local/bin/mc_ctl
PATH=/usr/local/bin:/usr/bin:/bin

console() {
    timeout 5 psql -X -q -d "$admin" -c "$1"
}

# "*": every database, by the same name. The file is replaced by a rename, so that PgBouncer never reads a partial file.
point() {
    place=$(where_is "$1")
    line="* = $place"
    if [ -f "$file" ] && grep -qxF "$line" "$file"; then
        return 0
    fi
    printf '[databases]\n%s\n' "$line" >"$file.new"
    mv "$file.new" "$file"
    echo "pointing to $1 ($place): ${MC_REASON:-}"
    # A PgBouncer that is not running reads the file when it starts.
    if console RELOAD; then
        console RECONNECT               # connections to the other server are closed as soon as they are free
    else
        echo "PgBouncer's console does not respond"
    fi
}

check() {
    status=$($mc_ctl status -M "$mc" --format json) || { echo "no controller responds; nothing is changed"; exit 0; }
    primary=$(printf '%s\n' "$status" | sed -n 's/^ *"primary": "\(.*\)",*$/\1/p')
    [ -z "$primary" ] || point "$primary"
}

case ${1:-}/$#/${3:-} in
    check/1/*) check ;;
    */2/*) point "$1" ;;
    */4/"$one") point "$two" ;;
    */4/"$two") point "$one" ;;
    *) echo "usage: pgbouncer.sh check, or as a command of mc_hooks(5)"; exit 2 ;;
esac
