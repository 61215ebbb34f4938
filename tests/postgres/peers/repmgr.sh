# repmgr with repmgrd on both servers and a witness on the third host. It leaves replication to the user. With one standby,
# synchronous replication would stop all commits when that standby fails, so it is asynchronous here. Two attempts tolerate one
# failed check.
case $NAME in nd1) id=1 ;; nd2) id=2 ;; *) id=3 ;; esac
conf=$DIR/repmgr.conf
conninfo="host=$ME user=postgres dbname=postgres connect_timeout=2"
[ "$FAST" = 0 ] && tuning= || tuning='monitor_interval_secs=1
reconnect_attempts=2
reconnect_interval=1'

configure() {
    cat >"$conf" <<-END
	node_id=$id
	node_name='$NAME'
	conninfo='$conninfo'
	data_directory='$DATA'
	pg_bindir='$BIN'
	repmgr_bindir='$BIN'
	failover='automatic'
	promote_command='$BIN/repmgr standby promote -f $conf --log-to-file'
	follow_command='$BIN/repmgr standby follow -f $conf --log-to-file --upstream-node-id=%n'
	log_file='$DIR/log'
	ssh_options='-q -i $KEYS/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null'
	$tuning
	END
}

# A switchover needs a remote shell between the servers.
root() {
    mkdir -p /run/sshd
    if [ ! -e "$KEYS/key" ]; then
        ssh-keygen -q -N '' -f "$KEYS/key"
        cp "$KEYS/key.pub" "$KEYS/authorized"
        chown postgres "$KEYS/key" "$KEYS/authorized"
    fi
    ssh-keygen -q -N '' -f "$DIR/hostkey"
    /usr/sbin/sshd -f /dev/null -h "$DIR/hostkey" -o AuthorizedKeysFile="$KEYS/authorized" -o StrictModes=no \
        -o UsePAM=yes -o PidFile=none
}

third() {
    "$BIN/initdb" -D "$DATA" -A trust -U postgres -N >"$DIR/initdb"
    printf '%s\n' "listen_addresses = '*'" "shared_preload_libraries = 'repmgr'" "unix_socket_directories = '$DIR'" \
        >>"$DATA/postgresql.conf"
    echo 'host all all 192.0.2.0/24 trust' >>"$DATA/pg_hba.conf"
    "$BIN/pg_ctl" -D "$DATA" -w -l "$DIR/postgresql" start
}

node() {
    configure
    "$BIN/pg_ctl" -D "$DATA" -w -l "$DIR/postgresql" start
    if [ "$id" = 1 ]; then
        "$BIN/repmgr" -f "$conf" primary register
    else
        until psql -qXh "$ME" -c 'TABLE repmgr.nodes' >/dev/null 2>&1; do sleep 0.1; done
        "$BIN/repmgr" -f "$conf" standby register --upstream-node-id=1 --wait-sync=10
    fi
    start "$BIN/repmgrd" -f "$conf" --daemonize=false --no-pid-file
}

witness() {
    configure
    "$BIN/repmgr" -f "$conf" witness register -h 192.0.2.100
    start "$BIN/repmgrd" -f "$conf" --daemonize=false --no-pid-file
}

ready() {
    [ "$NAME" != arb ] || [ -e "$conf" ] || witness
    "$BIN/repmgr" -f "$conf" service status --csv >"$DIR/status" && [ "$(grep -c '^[123],[^,]*,[^,]*,1,1,' "$DIR/status")" = 3 ]
}

switch() {
    "$BIN/repmgr" -f "$conf" standby switchover
}
