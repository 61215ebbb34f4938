//! Hosts with systemd as their first process. They share the files of the test machine, but systemd starts only its journal and the
//! units of a test: all other units, generators and logs are hidden, and the settings of the kernel cannot be written to.

use super::host::Host;
use super::pair::{self, Pair, readable};
use super::run::{Answer, run};
use super::{arbiter, s, sample, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs when the devices are mounted. `/srv/mc` and `/usr/local/bin` are as in the sample units, `/etc/systemd/system` outlives a
/// boot, and `/tmp`, in which a unit may make a private one, has only the directory of the tests.
pub const INIT: &str = r#"
root=$6; host=$7; shift 7
hide() { [ ! -d "$1" ] || mount -t tmpfs -o "mode=${2:-755}" none "$1"; }
hide /mnt
mkdir -p /mnt/units/sockets.target.wants /mnt/units/sysinit.target.wants "/mnt/tmp/${root##*/}" "$host/units" "$host/mc"
for unit in sysinit basic multi-user sockets timers paths slices local-fs swap shutdown umount final reboot poweroff \
    network network-online time-sync rescue emergency; do cp "/lib/systemd/system/$unit.target" /mnt/units; done
for unit in reboot.service poweroff.service journald.service journald.socket journald-dev-log.socket; do
    cp "/lib/systemd/system/systemd-$unit" /mnt/units
done
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket /mnt/units/sockets.target.wants
ln -s ../systemd-journald.service /mnt/units/sysinit.target.wants
for path in /etc/systemd /lib/systemd/system-generators /run /srv /usr/local/bin /usr/local/lib/systemd /var/lib/systemd \
    /var/log; do hide "$path"; done
hide /var/tmp 1777
mount --bind /mnt/units /lib/systemd/system
mkdir -p /etc/systemd/system /run/lock /run/systemd/journal /srv/mc
mount --bind "$host/units" /etc/systemd/system
mount --bind "$host/mc" /srv/mc
for program; do
    touch "/usr/local/bin/${program##*/}"
    mount --bind "$program" "/usr/local/bin/${program##*/}"
done
printf '[Journal]\nStorage=volatile\nForwardToSyslog=yes\nReadKMsg=no\nAudit=no\n' >/etc/systemd/journald.conf
rm /dev/log
ln -s "$host/syslog" /run/systemd/journal/syslog
hostname >/run/hostname; mount --bind /run/hostname /etc/hostname
tr -d - </proc/sys/kernel/random/uuid >/run/machine-id; mount --bind /run/machine-id /etc/machine-id
resolv=$(readlink -m /etc/resolv.conf); mkdir -p "${resolv%/*}"; [ -e "$resolv" ] || touch "$resolv"
for name in hosts resolv.conf nsswitch.conf; do
    [ ! -e "$host/etc-$name" ] || mount --bind "$host/etc-$name" "/etc/$name"
done
mount --rbind "$root" "/mnt/tmp/${root##*/}"
chmod 1777 /mnt/tmp
mount --rbind /mnt/tmp /tmp
mount -o bind,ro /proc/sys /proc/sys
mount -t sysfs -o ro none /sys
mount -t cgroup2 none /sys/fs/cgroup
touch "$ready"
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_PROC_CMDLINE= \
    /lib/systemd/systemd --unit=multi-user.target
"#;

/// The unit of the servers.
pub const CONTROLLER: &str = "mirroring-controller";
/// The unit of the arbiter.
pub const ARBITER: &str = "mirroring-arbiter";

/// Where the hierarchy of control groups is mounted.
pub fn mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("could not read /proc/mounts");
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|mount| mount[2] == "cgroup2").map(|mount| PathBuf::from(mount[1]))
}

/// The control groups of this test process; removed at its end.
pub fn control_groups() -> PathBuf {
    let mount = mount().expect("a mounted hierarchy of control groups (cgroup2) is required");
    mount.join(format!("mc-pg-{}", std::process::id()))
}

/// Puts what is appended to the command into the control group, as the root of all that it can see.
pub fn begin(command: &mut Command, group: &Path) -> &'static str {
    std::fs::create_dir_all(group).unwrap_or_else(|why| panic!("could not create {group:?}: {why}"));
    command.args(["sh", "-c", "echo $$ >\"$0/cgroup.procs\" && exec unshare --cgroup \"$@\""]).arg(group);
    INIT
}

/// Removes a control group whose processes have ended, with those below it.
pub fn remove_groups(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_groups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}

/// What is installed in `/usr/local/bin`.
pub fn programs() -> [PathBuf; 3] {
    let standard = readable(Path::new(env!("CARGO_BIN_EXE_mc_std")));
    [pair::program().to_owned(), arbiter::program().to_owned(), standard]
}

impl Host {
    /// Runs a line as root, as it is typed on it.
    pub fn type_root(&self, line: &str) -> Answer {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        run(command, s(150))
    }

    /// Runs a line as the administrator, with the directory of the units.
    pub fn type_admin(&self, line: &str) -> Answer {
        let mut command = self.admin("env");
        command.args([
            "MCCONTROLDIR=/srv/mc",
            "ARBCONTROLDIR=/srv/mc",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "sh",
            "-c",
            line,
        ]);
        run(command, s(150))
    }

    /// A property of a unit that systemd has loaded.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let answer = self.type_root(&format!("systemctl show --value -p {name} {unit}"));
        answer.expect(0, "systemctl show").out.trim().to_owned()
    }

    /// Waits until the property has the value.
    #[track_caller]
    pub fn wait_property(&self, unit: &str, name: &str, value: &str) {
        wait_for(&format!("{name}={value} of {unit}"), s(60), || (self.property(unit, name) == value).then_some(()));
    }

    /// Installs a sample.
    pub fn install_unit(&self, unit: &str) {
        self.write_unit(&format!("{unit}.service"), &sample(&format!("{unit}.service")));
    }

    /// What `systemctl edit` does.
    pub fn drop_in(&self, unit: &str, lines: &str) {
        self.write_unit(&format!("{unit}.service.d/override.conf"), lines);
    }

    /// Writes a file of `/etc/systemd/system`.
    pub fn write_unit(&self, name: &str, text: &str) {
        let path = self.dir.join("units").join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("could not create a directory");
        std::fs::write(path, text).expect("could not write");
        self.type_root("systemctl daemon-reload").expect(0, "systemctl daemon-reload");
    }

    /// What the unit has in the journal since the boot.
    pub fn journal(&self, unit: &str) -> String {
        self.type_root(&format!("journalctl -q -b -u {unit}")).expect(0, "journalctl").out
    }
}

impl Pair {
    /// A host: a server's, or the arbiter's as the third.
    pub fn on(&self, member: usize) -> &Host {
        if member < 2 { self.host(member) } else { self.third() }
    }

    /// The same, to switch on or off.
    pub fn on_mut(&mut self, member: usize) -> &mut Host {
        if member < 2 { self.host_mut(member) } else { self.arbiter.as_mut().expect("this pair has an arbiter") }
    }

    /// All hosts have systemd from now on, with the sample units.
    pub(super) fn install_systemd(&mut self) {
        for host in self.hosts.iter_mut().chain(&mut self.arbiter) {
            host.power_off();
            let directory = host.dir.parent().and_then(Path::file_name).expect("the pair's directory");
            host.group = Some(control_groups().join(directory).join(&host.name));
            host.boot();
        }
        for host in &self.hosts {
            host.install_unit(CONTROLLER);
        }
        if let Some(host) = &self.arbiter {
            host.install_unit(ARBITER);
            // there is no user mcarb on the test machine
            host.drop_in(ARBITER, "[Service]\nUser=postgres\n");
        }
    }
}
