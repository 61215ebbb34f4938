#!/bin/sh
# pgx_xlogcopy.cmd by "mc_ctl archive-wal": an archive_command with the guide's arguments. Install it as the header of
# samples/pgx_dmpall describes, and set on both servers:
#
#   archive_mode = always
#   archive_command = '/usr/local/bin/pgx_xlogcopy.cmd "%p" "/backup/inst1/archived_xlog/%f"'
#
# Only the name of the second argument counts: the file is copied to the WAL archive in backup_destination of ID.conf, the
# directory archived_wal. The exit status is 0 only when the copy is durable.
set -eu

mc=/srv/mc                              # the management directory
mc_ctl=/usr/local/bin/mc_ctl

if [ $# -ne 2 ]; then
    echo 'ERROR:usage: pgx_xlogcopy.cmd "%p" "DESTINATION/archived_xlog/%f"' >&2
    exit 1
fi
exec "$mc_ctl" archive-wal -M "$mc" "$1" "${2##*/}"
