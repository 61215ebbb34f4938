# pg_auto_failover with its monitor on the third host. The settings are described in pg_autoctl(5).
export PGDATA="$DATA" XDG_CONFIG_HOME="$DIR/config" XDG_DATA_HOME="$DIR/share" XDG_RUNTIME_DIR="$DIR/run"
monitor="postgres://autoctl_node@$THIRD:5432/pg_auto_failover"

third() {
    pg_autoctl create monitor --pgctl "$BIN/pg_ctl" --pgport 5432 --hostname "$THIRD" --auth trust --no-ssl
    [ "$FAST" = 0 ] || cat >>"$PGDATA/postgresql.conf" <<-END
	pgautofailover.health_check_period = 1000
	pgautofailover.health_check_timeout = 1000
	pgautofailover.health_check_max_retries = 1
	pgautofailover.health_check_retry_delay = 500
	pgautofailover.node_considered_unhealthy_timeout = 3000
	pgautofailover.primary_demote_timeout = 3000
	END
    start pg_autoctl run
}

node() {
    : >"$DATA/postgresql.auto.conf" # its primary_conninfo would override that of pg_auto_failover
    pg_autoctl create postgres --pgctl "$BIN/pg_ctl" --pghost "$DIR/../run" --pgport 5432 --hostname "$ME" --name "$NAME" \
        --monitor "$monitor" --username postgres --dbname postgres --no-ssl --skip-pg-hba
    [ "$FAST" = 0 ] || pg_autoctl config set timeout.network_partition_timeout 3
    start pg_autoctl run
}

# Both nodes have reached their states, and the monitor has checked both.
ready() {
    [ "$NAME" = arb ] || [ "$(psql -AtX "$monitor" -c "SELECT string_agg(reportedstate || '-' || health, ' ' ORDER BY nodeid)
        FROM pgautofailover.node WHERE reportedstate = goalstate")" = "primary-1 secondary-1" ]
}

# The command also waits for the old primary to become the standby, which the measurement does not.
switch() {
    start pg_autoctl perform switchover
    until [ "$(psql -h "$ME" -AtXc 'SHOW transaction_read_only' postgres)" = off ]; do sleep 0.1; done
}
