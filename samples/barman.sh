#!/bin/sh
# A backup_command and recover_command for Barman, which runs on a backup host or on this one. On both servers:
#
#   install -m 755 samples/barman.sh /usr/local/lib/mc/barman.sh      # set the names below
#
# and in ID.conf:   backup_command = '/usr/local/lib/mc/barman.sh'
#                   recover_command = '/usr/local/lib/mc/barman.sh'
#
# Barman's configuration of the server finds the primary, for example:
#
#   [pair]
#   conninfo = host=nd1.example.com,nd2.example.com user=barman dbname=postgres target_session_attrs=read-write
#   streaming_conninfo = host=nd1.example.com,nd2.example.com user=streaming_barman target_session_attrs=read-write
#   backup_method = postgres
#   archiver = on
#
# and archive_command of both servers sends WAL to it (barman-wal-archive). The retention is that of barman.conf.
# Exit status 0: the backup is complete, and the WAL that it needs is in Barman's archive; or the backup is restored.
#
# For a time and a position, the newest backup that precedes it is restored, otherwise the latest. "mc_ctl recover --backup" selects
# another one, by the name that "barman list-backup" shows.
set -eu

server=pair
config=/etc/barman.conf
remote=                                 # ssh -o BatchMode=yes barman@backup.example.com
here=                                   # ssh postgres@nd1.example.com: how Barman reaches this host, if it is on another

# shellcheck disable=SC2086 # a program and its arguments, or nothing
call() {
    $remote barman -q -c "$config" "$@"
}

# shellcheck disable=SC2086
ask() {
    $remote barman -c "$config" "$@"
}

# What "barman show-backup" has in a line, such as "End time".
shown() {
    ask show-backup "$server" "$1" | sed -n "s/^ *$2 *: *//p" | head -n 1
}

number() {                              # of a position in WAL
    echo $((0x${1%/*} * 4294967296 + 0x${1#*/}))
}

# Whether a backup precedes the target.
precedes() {
    case "$MC_TARGET_TYPE" in
    time) [ "$(date -d "$(shown "$1" "End time")" +%s%N)" -le "$(date -d "$MC_TARGET" +%s%N)" ] ;;
    lsn) [ "$(number "$(shown "$1" "End LSN")")" -le "$(number "$MC_TARGET")" ] ;;
    esac
}

# Barman lists the newest backup first.
selected() {
    for backup in ${MC_BACKUP:-$(ask list-backup --minimal "$server")}; do
        if [ -n "$MC_BACKUP" ] || precedes "$backup"; then
            echo "$backup"
            return
        fi
    done
    echo "no backup of server $server precedes the target" >&2
    return 1
}

# MC_TABLESPACES has a line for each tablespace: its OID, and the directory that it is restored to. Barman requires its name.
restore() {
    backup=$(selected)
    set -- --get-wal
    [ -z "$here" ] || set -- "$@" --remote-ssh-command "$here"
    while read -r oid directory; do
        [ -n "$oid" ] || continue
        name=$(ask show-backup "$server" "$backup" | sed -n "s/^ *\(.*[^ ]\) *: .* (oid: $oid)\$/\1/p")
        [ -z "$name" ] || set -- "$@" --tablespace "$name:$directory"
    done <<-END
	$MC_TABLESPACES
	END
    call recover "$@" "$server" "$backup" "$MC_RESTORE_DIRECTORY"
    rm -f "$MC_RESTORE_DIRECTORY/.barman-recover.info"
}

case "${MC_COMMAND:-backup_command} ${MC_ACTION:-}" in
"recover_command restore")
    restore
    exit
    ;;
"recover_command wal")                  # exit status 1: Barman has no such file
    call get-wal "$server" "$MC_WAL_NAME" >"$MC_WAL_PATH" && exit
    status=$?
    rm -f "$MC_WAL_PATH"
    exit "$status"
    ;;
esac

# Without archived WAL Barman starts no backup.
call switch-wal --force --archive --archive-timeout 60 "$server"
call backup --wait --wait-timeout 600 "$server"
echo "Barman has a backup of server $server, made on ${MC_SERVER:-this server}"
