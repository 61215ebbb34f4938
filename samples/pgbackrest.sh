#!/bin/sh
# A backup_command and recover_command for pgBackRest. On both servers:
#
#   install -m 755 samples/pgbackrest.sh /usr/local/lib/mc/pgbackrest.sh      # set the names below
#
# and in ID.conf:          backup_command = '/usr/local/lib/mc/pgbackrest.sh'
#                          recover_command = '/usr/local/lib/mc/pgbackrest.sh'
# and in postgresql.conf:  archive_mode = on
#                          archive_command = 'pgbackrest --stanza=main archive-push %p'
#
# pgbackrest.conf of each server names its own instance and the same repository, on a repository host or in shared storage:
#
#   [global]
#   repo1-host=backup.example.com
#   start-fast=y
#   [main]
#   pg1-path=/srv/pg/15
#   pg1-port=5432
#
# The first call creates the stanza. Each Sunday it makes a full backup, else an incremental one; pgBackRest makes a full one if
# there is none. After the backup it checks that WAL arrives in the repository. The retention is that of pgbackrest.conf.
# Exit status 0: the backup is complete, or restored.
#
# For a time and a position, pgBackRest selects the newest backup that precedes it, otherwise the latest. "mc_ctl recover --backup"
# selects another one, by the name that "pgbackrest info" shows.
set -eu

stanza=main
config=/etc/pgbackrest/pgbackrest.conf
pgbackrest=/usr/bin/pgbackrest
psql=/usr/bin/psql
connection='dbname=postgres'            # of a superuser, by the instance's socket; a password in ~/.pgpass

call() {
    "$pgbackrest" --config="$config" --stanza="$stanza" --log-level-console=warn "$@"
}

# MC_TABLESPACES has a line for each tablespace: its OID, and the directory that it is restored to.
restore() {
    case "$MC_TARGET_TYPE" in
    latest) set -- --type=default ;;
    immediate) set -- --type=immediate ;;
    *) set -- --type="$MC_TARGET_TYPE" --target="$MC_TARGET" ;;
    esac
    [ -z "$MC_BACKUP" ] || set -- "$@" --set="$MC_BACKUP"
    while read -r oid directory; do
        [ -z "$oid" ] || set -- "$@" --tablespace-map="$oid=$directory"
    done <<-END
	$MC_TABLESPACES
	END
    call --pg1-path="$MC_RESTORE_DIRECTORY" "$@" restore
}

case "${MC_COMMAND:-backup_command} ${MC_ACTION:-}" in
"recover_command restore")
    restore
    exit
    ;;
"recover_command wal")                  # exit status 1: the repository has no such file
    call --pg1-path="$MC_RESTORE_DIRECTORY" archive-get "$MC_WAL_NAME" "$MC_WAL_PATH"
    exit
    ;;
esac

type=incr
[ "$(date +%u)" -ne 7 ] || type=full
# pgBackRest makes no backup between a promotion and the next checkpoint.
"$psql" -qX -v ON_ERROR_STOP=1 -d "$connection port=${MC_PRIMARY_PORT:-5432}" -c CHECKPOINT
call stanza-create
call --type="$type" backup
call check
echo "pgBackRest has a backup of stanza $stanza, made on ${MC_SERVER:-this server}"
