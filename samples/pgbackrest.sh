#!/bin/sh
# A backup_command for pgBackRest. On both servers:
#
#   install -m 755 samples/pgbackrest.sh /usr/local/lib/mc/pgbackrest.sh      # set the names below
#
# and in ID.conf:          backup_command = '/usr/local/lib/mc/pgbackrest.sh'
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
# Exit status 0: the backup is complete.
set -eu

stanza=main
config=/etc/pgbackrest/pgbackrest.conf
pgbackrest=/usr/bin/pgbackrest
psql=/usr/bin/psql
connection='dbname=postgres'            # of a superuser, by the instance's socket; a password in ~/.pgpass

call() {
    "$pgbackrest" --config="$config" --stanza="$stanza" --log-level-console=warn "$@"
}

type=incr
[ "$(date +%u)" -ne 7 ] || type=full
# pgBackRest makes no backup between a promotion and the next checkpoint.
"$psql" -qX -v ON_ERROR_STOP=1 -d "$connection port=${MC_PRIMARY_PORT:-5432}" -c CHECKPOINT
call stanza-create
call --type="$type" backup
call check
echo "pgBackRest has a backup of stanza $stanza, made on ${MC_SERVER:-this server}"
