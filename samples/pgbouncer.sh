#!/bin/sh
# Points a PgBouncer on this host to the primary: its clients need not know which server that is. On each server that has a
# PgBouncer:
#
#   install -m 755 samples/pgbouncer.sh /usr/local/lib/mc/pgbouncer.sh      # put in your servers and paths below
#
# in ID.conf:          post_switch_command = '/usr/local/lib/mc/pgbouncer.sh'
#                      post_attach_command = '/usr/local/lib/mc/pgbouncer.sh'
# in pgbouncer.ini:    %include /etc/pgbouncer/primary.ini
#                      (this script writes it, so that pgbouncer.ini itself has no [databases])
#
# It is called, and does, as follows; each can be repeated without harm.
#
#   pgbouncer.sh NEW_PRIMARY primarycenter                         post_switch_command: points to NEW_PRIMARY
#   pgbouncer.sh CALLER primary|standby STANDBY primarycenter      post_attach_command: points to the one that is no standby
#   pgbouncer.sh check                                             points to whom the controller of this host calls the primary
#
# The first time, before PgBouncer is started, write the file by "pgbouncer.sh check". The old primary runs no command after a
# failover: run "pgbouncer.sh check" there every few seconds, as for samples/vip.sh.
#
# It must run as PgBouncer's own user, who may use the console by the socket without a password (Debian: postgres).
# Programs: psql, timeout (coreutils).
set -eu

# The servers, as network.conf calls them, and how PgBouncer reaches their instances.
one=server1
two=server2
where_is() {
    case $1 in
        "$one") echo "host=192.0.2.100 port=5432" ;;
        "$two") echo "host=192.0.2.110 port=5432" ;;
        *) echo "server \"$1\" is not known to this script" >&2; return 1 ;;
    esac
}

file=/etc/pgbouncer/primary.ini
console='host=/run/postgresql port=6432 user=pgbouncer dbname=pgbouncer'
mc=/srv/mc                              # the management directory
mc_ctl=/usr/local/bin/mc_ctl
PATH=/usr/local/bin:/usr/bin:/bin

say() {
    timeout 5 psql -X -q -d "$console" -c "$1"
}

# "*": every database, by the same name. The file is replaced as a whole, so that PgBouncer never reads half of it.
point() {
    place=$(where_is "$1")
    line="* = $place"
    if [ -f "$file" ] && grep -qxF "$line" "$file"; then
        return 0
    fi
    printf '[databases]\n%s\n' "$line" >"$file.new"
    mv "$file.new" "$file"
    echo "pointing to $1 ($place): ${MC_REASON:-}"
    # One that does not run reads the file when it starts.
    if say RELOAD; then
        say RECONNECT                   # what still goes to the other server is closed as soon as it is free
    else
        echo "PgBouncer's console does not answer"
    fi
}

check() {
    status=$($mc_ctl status -M "$mc" --format json) || { echo "no controller answers; nothing is changed"; exit 0; }
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
