#!/bin/sh
# A backup_command for Barman, which runs on a backup host or on this one. On both servers:
#
#   install -m 755 samples/barman.sh /usr/local/lib/mc/barman.sh      # set the names below
#
# and in ID.conf:   backup_command = '/usr/local/lib/mc/barman.sh'
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
# Exit status 0: the backup is complete, and the WAL that it needs is in Barman's archive.
set -eu

server=pair
config=/etc/barman.conf
remote=                                 # ssh -o BatchMode=yes barman@backup.example.com

# shellcheck disable=SC2086 # a program and its arguments, or nothing
call() {
    $remote barman -q -c "$config" "$@"
}

# Without archived WAL Barman starts no backup.
call switch-wal --force --archive --archive-timeout 60 "$server"
call backup --wait --wait-timeout 600 "$server"
echo "Barman has a backup of server $server, made on ${MC_SERVER:-this server}"
