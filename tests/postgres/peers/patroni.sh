# Patroni with one etcd on the third host, which is the best case for Patroni: no etcd is on a host that fails.
# The fast settings are the minimums of its documentation, "Dynamic Configuration Settings". With primary_start_timeout 0 a crash
# causes a failover at once; with the default, the crashed server is first recovered in single-user mode.
case $FAST in
1) tuning='ttl: 20, loop_wait: 1, retry_timeout: 3, primary_start_timeout: 0' ;;
*) tuning='ttl: 30, loop_wait: 10, retry_timeout: 10' ;;
esac

third() {
    start etcd --data-dir "$DIR/etcd" --listen-client-urls "http://$THIRD:2379" --advertise-client-urls \
        "http://$THIRD:2379" --listen-peer-urls http://127.0.0.1:2380
}

node() {
    cat >"$DIR/patroni.yml" <<-END
	scope: bench
	name: $NAME
	restapi: {listen: "$ME:8008", connect_address: "$ME:8008"}
	etcd3: {host: "$THIRD:2379"}
	bootstrap: {dcs: {$tuning, synchronous_mode: true, postgresql: {use_pg_rewind: true}}}
	postgresql:
	  listen: "*:5432"
	  connect_address: "$ME:5432"
	  data_dir: $DATA
	  bin_dir: $BIN
	  pgpass: $DIR/pgpass
	  authentication: {superuser: {username: postgres}, replication: {username: postgres}}
	  parameters: {unix_socket_directories: "$DIR"}
	END
    start patroni "$DIR/patroni.yml"
    # the first server is the leader before the second one starts
    until patronictl -c "$DIR/patroni.yml" list -f tsv | grep -q "nd1.*Leader.*running"; do sleep 0.1; done
}

# The leader has published the synchronous standby, without which nothing is promoted.
ready() {
    [ "$NAME" = arb ] || patronictl -c "$DIR/patroni.yml" list -f tsv | grep -q "Sync Standby.*running\|Sync Standby.*streaming"
}

switch() {
    patronictl -c "$DIR/patroni.yml" switchover --master nd1 --candidate nd2 --force
}
