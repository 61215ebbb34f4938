//! How to resolve each finding of `mc_ctl check` in general, for `mc_ctl explain CODE`. The finding itself names command, file
//! and line.

use super::{Entry, catalogue};

/// By code, in the order of the manual.
#[rustfmt::skip]
const REMEDIES: &[(&str, &str)] = &[
    ("configuration", "Correct the file that the finding names."),
    ("controller-down", "Run mc_ctl start -f, which reports why a start fails. Correct that, then run it again."),
    ("peer-not-seen", "Start the controllers of both servers, or run mc_ctl check on the other server as well."),
    ("not-checked", "Examine the disk and the instance, or run mc_ctl check with a longer time limit (-t)."),
    ("configuration-warning", "Follow the advice of the finding, or accept the risk."),
    ("configuration-notice", "Remove the line if it is not needed."),
    ("no-data-directory", "Run mc_ctl rebuild on this server while the other server is the primary."),
    ("same-file-system", "Move the management directory to another file system while this server is the standby: \"Moving the management directory\" in mirroring-controller(7)."),
    ("conf-not-writable", "Give the file and its directory to the user who runs the instance, with write permission."),
    ("conf-errors", "Correct the line that the finding names, and reload the instance."),
    ("pending-restart", "Restart the instances, the standby first: mc_ctl stop and mc_ctl start."),
    ("startup-race", "Install a minor version without this defect, or set accept_startup_race = 'on' to accept the risk."),
    ("startup-race-accepted", "Install a minor version without this defect, and remove accept_startup_race."),
    ("major-versions", "Install the same major version of PostgreSQL on both servers, and set bin_dir."),
    ("minor-versions", "Update the server with the older version: the standby first, then mc_ctl switch, then the other server."),
    ("system-identifiers", "Run mc_ctl rebuild on the server that is not the primary. It keeps the old data directory beside the copy."),
    ("unlogged-tables", "If the contents are needed after a switch: ALTER TABLE ... SET LOGGED."),
    ("invalid-index", "Run REINDEX on the index, or drop it."),
    ("server-log", "Nothing. To write the log to another file, set log_file in ID.conf or logging_collector = on."),
    ("server-log-unwritable", "Make the file writable, restart the instance if it has a removed file open, and configure logrotate with copytruncate."),
    ("session-refused", "Correct db_instance_username, db_instance_password or target_db in ID.conf, or pg_hba.conf, and run mc_ctl reload."),
    ("instance-not-responding", "Examine the instance's disk and its log."),
    ("not-superuser", "On the primary: ALTER ROLE ... SUPERUSER, or set db_instance_username to a superuser."),
    ("role-limits", "On the primary: ALTER ROLE ... RESET of the setting, for the controller's role."),
    ("listen-addresses", "Set listen_addresses to include the address, and restart the instance."),
    ("hba-errors", "Correct the line of pg_hba.conf, and reload the instance."),
    ("hba-replication", "Add the rule that the finding shows to pg_hba.conf of both servers, and reload the instances."),
    ("hba-rebuild", "Add the rule that the finding shows to pg_hba.conf of both servers, and reload the instances."),
    ("hba-password", "Set db_instance_password on the other server, and run mc_ctl reload there."),
    ("hba-trust", "Replace trust by scram-sha-256, give the roles passwords, and reload the instance."),
    ("hba-clients", "Add the rules to pg_hba.conf of this server as well, and reload the instance."),
    ("rebuild-session", "Correct db_instance_username or target_db in ID.conf, or pg_hba.conf of the other server."),
    ("wal-level", "Set wal_level = replica, and restart the instance."),
    ("max-wal-senders", "Increase max_wal_senders, and restart the instances, the standby first."),
    ("hot-standby", "Set hot_standby = on, and restart the instance."),
    ("fsync-off", "Set fsync = on, and reload the instance."),
    ("full-page-writes-off", "Set full_page_writes = on, and reload the instance."),
    ("no-rewind", "Set wal_log_hints = on and restart the instance, or enable data checksums with pg_checksums."),
    ("synchronous-commit", "Set synchronous_commit = on, and reload the instance."),
    ("synchronous-commit-role", "On the primary: ALTER ROLE or ALTER DATABASE ... RESET synchronous_commit, unless the loss is acceptable."),
    ("max-connections", "Increase max_connections, on the standby first, and restart; or use a connection pool."),
    ("reserved-connections", "Increase superuser_reserved_connections, and restart the instance."),
    ("standby-settings", "Increase the setting on the standby to the primary's value, and restart it."),
    ("wal-keep", "Set wal_keep_size to the WAL of the longest expected absence of the standby, and reload the instance."),
    ("wal-sender-timeout-off", "Set wal_sender_timeout, and reload the instance."),
    ("wal-sender-timeout-long", "Set wal_sender_timeout to about twice the detection time, and reload the instance."),
    ("wal-receiver-timeout-off", "Set wal_receiver_timeout, and reload the instance."),
    ("wal-receiver-timeout-long", "Set wal_receiver_timeout to about twice the detection time, and reload the instance."),
    ("archive-off", "Set archive_command or archive_library and archive_mode = always on both servers, and restart the instances: \"Backups\" in mirroring-controller(7)."),
    ("archive-timeout", "Set archive_timeout, for example to 5min, and reload the instances: \"Backups\" in mirroring-controller(7)."),
    ("archive-command", "Set archive_command or archive_library, or archive_mode = off."),
    ("archive-on", "Set archive_mode = always on both servers, with an archive_command that accepts a file that is archived already."),
    ("archive-failing", "Examine the instance's log and pg_stat_archiver, and repair archive_command."),
    ("restore-command", "Make restore_command end quickly, or remove it."),
    ("recovery-target", "Remove the recovery_target settings, and restart the instance."),
    ("recovery-min-apply-delay", "Set recovery_min_apply_delay = 0, and reload the instance."),
    ("promote-trigger-file", "Remove promote_trigger_file, and reload the instance."),
    ("standby-names-overridden", "ALTER SYSTEM RESET synchronous_standby_names, or remove the line that the finding names, and reload the instance."),
    ("standby-names-repeated", "Remove all of the lines except one."),
    ("standby-names-not-one", "Set synchronous_standby_names to the other server's application_name alone, in postgresql.conf, and reload the instance."),
    ("standby-names-not-peer", "Set synchronous_standby_names to the other server's application_name, in postgresql.conf, and reload the instance."),
    ("foreign-wal-receiver", "End the other WAL receiver, and give it another application_name."),
    ("conninfo-name", "Add application_name=ID to primary_conninfo of the standby, and reload it."),
    ("conninfo-host", "Correct host and port in primary_conninfo of the standby, and reload it."),
    ("conninfo-unreadable", "Write primary_conninfo as host=... port=... user=... application_name=... in postgresql.auto.conf."),
    ("slot-unlimited", "Set max_slot_wal_keep_size, and reload the instance."),
    ("slot-inactive", "Start the client of the slot (a subscription, a standby, pg_receivewal). Only if it no longer exists: SELECT pg_drop_replication_slot('NAME')."),
    ("password-rejected", "Set db_instance_password in ID.conf of both servers to the password of the database user, and run mc_ctl reload on both: \"Changing the password\" in mirroring-controller(7)."),
    ("replication-fails", "Correct the cause that the error reports (password, certificate, pg_hba.conf of the primary), and run mc_ctl reload on the standby."),
    ("wal-removed", "Run mc_ctl rebuild on the standby. To prevent it, set wal_keep_size higher, or a restore_command."),
    ("rebuild-failed", "Repair the cause that the finding names, and run mc_ctl rebuild on this server."),
    ("refused-configuration", "Correct the file on the other server."),
    ("network-conf-differs", "Copy the correct network.conf to all members, and restart their controllers."),
    ("key-differs", "Copy the correct mc.key to all members, and restart their controllers."),
    ("no-member-keys", "Run mc_ctl init on both servers and mc_arb init, and add the keys to network.conf: network.conf(5)."),
    ("isolated-primary-waits", "Set isolated_primary_action = 'stop' in ID.conf of both servers, and restart the controllers."),
    ("error-action-differs", "Set heartbeat_error_action to one value in both ID.conf, and restart the controllers."),
    ("heartbeat-times-differ", "Set the heartbeat parameters to the same values in both ID.conf, and restart the controllers."),
    ("restart-needed", "For ID.conf run mc_ctl reload, which reports each change that requires a restart. Otherwise: mc_ctl reload && mc_ctl stop --mc-only && mc_ctl start --mc-only -f. The instance continues to run."),
    ("versions-differ", "Install the same version on all members, and restart the controllers, the standby's first."),
    ("clock-offset", "Run a time service on both hosts."),
    ("name-unresolved", "Write the address into network.conf of all members, or add the name to the name service or /etc/hosts of the host."),
    ("name-differs", "Make /etc/hosts the same on both servers, or write addresses into network.conf of all members."),
    ("shared-host", "Place each member on a separate host."),
    ("instance-port", "Choose another port, or reserve it with net.ipv4.ip_local_reserved_ports."),
    ("tool-missing", "Install the program from the packages of PostgreSQL, or correct bin_dir in ID.conf."),
    ("tool-version", "Set bin_dir in ID.conf to the directory of the data directory's version."),
    ("disk-not-readable", "Examine the mount and the kernel's log."),
    ("disk-full", "Free space: \"A disk is full\" in mirroring-controller(7)."),
    ("disk-space", "Free space, or enlarge the file system. A slot that no client uses retains WAL."),
    ("backup-space", "Enlarge the file system, or use --old-data delete if a rebuild is required."),
    ("unsuitable-file-system", "Move the directory to a local disk."),
    ("rebuild-prevented", "Move the data directory into a directory that this user can write to, so that it is not a mount point itself, or change the owner of the directory above it."),
    ("autostart", "Disable the unit or script that the finding names; on Debian write manual into start.conf."),
    ("not-started-at-boot", "Enable the controller's unit: \"Starting at boot\" in mirroring-controller(7). Ignore this if another service manager starts the controller."),
    ("unit-kill-mode", "Set KillMode=process in the [Service] section of the unit, and run systemctl daemon-reload."),
    ("unit-restart", "Set Restart=on-failure in the [Service] section of the unit, and run systemctl daemon-reload."),
    ("remove-ipc", "Set RemoveIPC=no in logind.conf, or run the instance as a system user."),
    ("oom-killer", "Set vm.overcommit_memory = 2, or OOMScoreAdjust=-900 in the unit."),
    ("backup-destination", "Mount the file system of backup_destination, and give the directory to the instance administrator user with mode 0700."),
    ("backup-same-disk", "Set backup_destination to a directory on another disk, and move its contents there."),
    ("backup-one-server", "Set backup_destination in ID.conf of both servers, and run mc_ctl reload."),
    ("backup-overdue", "Run mc_ctl backup on the primary, and from cron on both servers."),
    ("backup-damaged", "Examine the disk of backup_destination, and run mc_ctl backup on the primary."),
    ("backup-destination-shared", "Set backup_destination to a directory of its own on each server, and run mc_ctl reload there."),
    ("backup-abandoned", "Run mc_ctl backup --delete BACKUP if its timeline is no longer of interest."),
    ("backup-wal-missing", "Run mc_ctl backup on the primary. Its recovery does not need the missing WAL."),
    ("backup-wal-late", "Examine the instance's log, and whether archive_command ends and can keep up with the WAL."),
    ("backup-destination-space", "Enlarge the file system of backup_destination, or remove a backup: mc_ctl backup --delete BACKUP."),
    ("peer-no-heartbeat", "Run mc_ctl status on the other server. If its controller runs, compare network.conf and mc.key, and open the port of its line in network.conf."),
    ("connection-rejected", "If the caller is a member, correct its network.conf and mc.key. Otherwise block it with a firewall."),
    ("arbiter-disk-full", "Free space on the arbiter's host: \"A disk is full\" in mirroring-controller(7)."),
    ("arbiter-no-heartbeat", "Run mc_arb status on the arbiter's host. If it runs, compare mc.key, and open its port."),
    ("link-unsteady", "See mc_ctl history and both logs for restarts of controllers. Otherwise examine the network."),
    ("heartbeat-late", "Increase heartbeat_timeout to the value that the finding names on both servers, and restart the controllers."),
    ("arbiter-late", "Increase arbiter_alive_timeout to the value that the finding names, and restart the controller."),
    ("instance-late", "Increase db_instance_check_timeout to the value that the finding names, and restart the controller."),
    ("disk-late", "Increase disk_check_timeout to the value that the finding names, and restart the controller."),
    ("instance-down", "Run mc_ctl start on the server, or mc_ctl rebuild if it has lost its role."),
    ("ledger-not-writable", "Free space on the file system of the management directory, or repair it: \"A disk is full\" in mirroring-controller(7)."),
    ("not-mirrored", "Run the command that the finding names. mc_ctl status shows the state, mc_ctl history what led to it."),
    ("detection-slow", "Reduce the timeout to the value that the finding names, if failures should be detected sooner."),
];

/// The finding with this code.
pub fn find(code: &str) -> Option<&'static Entry> {
    catalogue().find(|entry| entry.code.eq_ignore_ascii_case(code))
}

impl Entry {
    /// How to resolve it in general.
    pub fn remedy(&self) -> &'static str {
        REMEDIES.iter().find(|(code, _)| *code == self.code).map_or("", |(_, remedy)| remedy)
    }

    /// For people.
    pub fn explain(&self) -> String {
        let (code, severity, about) = (self.code, self.severity.word(), self.about);
        format!("{code}  {severity}\n\nMeaning:     {about}\nWhat to do:  {}\n", self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_one_remedy() {
        for entry in catalogue() {
            assert_eq!(REMEDIES.iter().filter(|(code, _)| *code == entry.code).count(), 1, "{}", entry.code);
            let explained = entry.explain();
            assert!(explained.contains(entry.about) && explained.trim_end().ends_with('.'), "{explained}");
        }
        let known = |code: &&str| find(code).is_some();
        assert!(REMEDIES.iter().map(|(code, _)| code).all(known));
        assert!(find("MCA00062").is_none() && find("SAME-file-system").is_some());
    }
}
