//! The hub's callers: who dials, whose key and identifier they show, what they say, and when they are sent away.

use super::super::cluster::Cluster;
use super::super::connection::{Connection, Said, Stage};
use super::{Hub, KEYS_PER_SECOND, SILENCE_LIMIT_MS, Source};
use crate::daemon::noise::{FIRST_LENGTH, NotProved, Refusal, Transport, has_hung_up};
use crate::daemon::{inspect, now};
use crate::error::{Error, Result};
use crate::fsm::event::{Event, Message};
use crate::fsm::types::{Member, Server, SystemId, Time};
use crate::messages::{self, Tell};
use crate::wire::{self, Aside, Hello};
use rustix::event::epoll;
use std::net::IpAddr;

/// Connections from addresses of no cluster that may wait to be authenticated at a time.
const MAX_STRANGERS: usize = 64;

/// The same from one address of a cluster's server, and so many more for each cluster that has a server there.
const MAX_WAITING: usize = 16;
const MAX_WAITING_OF_CLUSTER: usize = 4;

/// Strangers are reported at most this often, ms.
const REPORT_INTERVAL_MS: u64 = 60_000;

/// What it costs to try a key of a handshake with member keys, against one without.
const EXCHANGE_PRICE: usize = 20;

/// Connections accepted from one listener before others are looked at.
const ACCEPTS: usize = 64;

impl Hub {
    pub(super) fn accept(&mut self, listener: u64) {
        for _ in 0..ACCEPTS {
            let Some(Source::Listener(socket)) = self.sources.get(listener) else { return };
            let Ok((stream, from)) = socket.accept() else { return };
            let address = from.ip().to_canonical();
            let clusters = self.by_address.get(&address).map(Vec::len);
            // Those who cannot be members do not keep members out.
            let full = match clusters {
                None => self.strangers >= MAX_STRANGERS,
                Some(clusters) => {
                    let waiting = self.waiting.get(&address).copied().unwrap_or_default();
                    waiting >= MAX_WAITING + MAX_WAITING_OF_CLUSTER * clusters
                }
            };
            if full {
                continue;
            }
            let known = clusters.is_some();
            let Ok(connection) = Connection::new(stream, from, known, now()) else { continue };
            if let Ok(token) = self.add(Source::Connection(Box::new(connection)), epoll::EventFlags::IN) {
                self.limited.insert(token);
                match known {
                    true => *self.waiting.entry(address).or_default() += 1,
                    false => self.strangers += 1,
                }
            }
        }
    }

    fn connection(&mut self, token: u64) -> Option<&mut Connection> {
        match self.sources.get(token) {
            Some(Source::Connection(connection)) => Some(connection),
            _ => None,
        }
    }

    /// Takes in what a connection has said, and sends what waits for it.
    pub(super) fn talk(&mut self, token: u64) -> Result<()> {
        let late = self.shook_hands && now() >= self.handshakes_until;
        if let Some(connection) = self.connection(token) {
            if late && matches!(connection.stage, Stage::First) {
                self.crowded = true;
                return Ok(());
            }
            connection.fill()?;
            if connection.has_unsent() {
                connection.flush()?;
                self.wait_for(token);
            }
        }
        loop {
            let Some(connection) = self.connection(token) else { return Ok(()) };
            match connection.next()? {
                None => return Ok(()),
                Some(Said::First(first)) => self.recognise(token, &first)?,
                Some(Said::Hello(cluster, hello)) => self.greet(token, cluster, &hello)?,
                Some(Said::Body(cluster, server, body)) => self.hear(cluster, server, &body)?,
            }
        }
    }

    /// Finds the key that a first message was made with: those of the clusters with the caller's address first.
    fn recognise(&mut self, token: u64, first: &[u8]) -> Result<()> {
        self.shook_hands = true;
        let Some(connection) = self.connection(token) else { return Ok(()) };
        let address = connection.from.ip().to_canonical();
        let likely = self.by_address.get(&address).cloned().unwrap_or_default();
        let (mut found, mut not_proved) = (None, None);
        let mut answers = |clusters: &[Cluster], index: usize| {
            match Transport::answer(clusters[index].identity(), &clusters[index].listed, first) {
                Ok(answer) => found = Some((index, answer)),
                Err(Refusal::NotProved(what)) => not_proved = Some((index, what)),
                Err(Refusal::Other(_)) => (),
            }
            found.is_some()
        };
        let is_found = likely.iter().any(|index| answers(&self.clusters, *index));
        let others = self.clusters.len() - likely.len();
        // With member keys, a key is tried by an exchange of keys.
        let price = others * if first.len() == FIRST_LENGTH { EXCHANGE_PRICE } else { 1 };
        if !is_found && others > 0 && self.keys_left >= price.min(KEYS_PER_SECOND) {
            self.keys_left = self.keys_left.saturating_sub(price);
            let _ = (0..self.clusters.len())
                .filter(|index| !likely.contains(index))
                .any(|index| answers(&self.clusters, index));
        }
        let Some((cluster, (transport, frame))) = found else {
            return Err(match not_proved {
                Some((cluster, what)) => self.report_not_proved(token, cluster, &Server::BOTH, what),
                None => Error::new("could not authenticate: it does not have the mc.key of any cluster"),
            });
        };
        let Some(connection) = self.connection(token) else { return Ok(()) };
        connection.keyed(cluster, transport, &frame)?;
        self.wait_for(token);
        Ok(())
    }

    /// Lets a server in that has said who it is. Its newest connection is the one that counts.
    fn greet(&mut self, token: u64, index: usize, hello: &Hello) -> Result<()> {
        let names = &self.clusters[index].names;
        let server = match hello.member {
            Member::Server(server) if hello.id == names.id(server) && hello.to == names.arbiter => server,
            _ => {
                let (id, to) = (&hello.id, &hello.to);
                let what =
                    format!("member \"{id}\" tried to reach \"{to}\", and its network.conf is not the same as here");
                return Err(
                    Error::new(what).hint("network.conf must be the same on all members, its lines in the same order")
                );
            }
        };
        let listed = self.clusters[index].listed.get(server.index()).copied();
        if listed.is_some() && listed != self.connection(token).and_then(|connection| connection.caller()) {
            return Err(self.report_not_proved(token, index, &[server], NotProved::OtherKey));
        }
        let cluster = &mut self.clusters[index];
        if let Err(why) = &cluster.core {
            return Err(Error::new(format!("its cluster is not served: {}", why.message)));
        }
        let seen = &mut cluster.servers[server.index()];
        seen.heard = Some(now());
        let detection_ms = seen.detection_ms;
        let old = seen.connection.replace(token);
        if let Some(old) = old {
            self.close(old);
        }
        self.limited.remove(&token);
        let Some(connection) = self.connection(token) else { return Ok(()) };
        connection.member(server);
        let unacknowledged_ms = u32::try_from(detection_ms.max(SILENCE_LIMIT_MS)).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(connection.stream(), unacknowledged_ms);
        let (address, known) = (connection.from.ip().to_canonical(), connection.known);
        self.waits_no_more(address, known);
        Ok(())
    }

    /// A connection has authenticated itself or has ended.
    fn waits_no_more(&mut self, address: IpAddr, known: bool) {
        match self.waiting.get_mut(&address).filter(|_| known) {
            Some(waiting) if *waiting > 1 => *waiting -= 1,
            Some(_) => drop(self.waiting.remove(&address)),
            None => self.strangers -= 1,
        }
    }

    /// Reports a caller that holds a cluster's `mc.key` and not the key of one of these servers. Strangers do not hide it.
    fn report_not_proved(&mut self, token: u64, index: usize, as_one_of: &[Server], what: NotProved) -> Error {
        let at = now();
        let from = self.connection(token).map(|connection| connection.from.to_string()).unwrap_or_default();
        if self.reported_keys.is_none_or(|last| at.since(last) >= REPORT_INTERVAL_MS) {
            self.reported_keys = Some(at);
            // The end of the connection is not reported besides.
            self.reported = Some(at);
            let cluster = &self.clusters[index];
            let quoted = |server: &Server| format!("\"{}\"", cluster.names.id(*server));
            let members = as_one_of.iter().map(quoted).collect::<Vec<_>>().join(" or ");
            let members = match cluster.name.as_str() {
                "" => members,
                name => format!("{members} of cluster \"{name}\""),
            };
            messages::tell(&Tell::KeyNotProved { from, members, why: what.text() });
        }
        Error::new(what.text())
    }

    fn hear(&mut self, index: usize, server: Server, body: &[u8]) -> Result<()> {
        let message = match wire::decode(body) {
            Ok(message) => message,
            Err(error) => {
                // A server's `mc_ctl check` asks what this is.
                let cluster = &self.clusters[index];
                let (other_online, durable) = (cluster.is_online(server.other()), cluster.durable());
                let answer = |aside| inspect::arbiter_answer(&aside, other_online, durable);
                match Aside::decode(body).ok().and_then(answer) {
                    Some(answer) => self.send_body(index, server, answer.encode()),
                    None => log::debug!("from \"{}\": {error}", self.clusters[index].names.id(server)),
                }
                return Ok(());
            }
        };
        match message {
            Message::Heartbeat(ref heartbeat) => {
                let at = now();
                self.clusters[index].heard(server, heartbeat, &self.resolver, at);
                self.settle_system(index, heartbeat.system, at)?;
                self.step(index, at, Event::Heard(Member::Server(server), message));
            }
            Message::Propose { .. } => self.proposals.push((index, server, message)),
            _ => (),
        }
        Ok(())
    }

    /// Finds the ledger of a cluster that tells its system identifier for the first time since the start. An error where
    /// the cluster cannot be served with it.
    fn settle_system(&mut self, index: usize, told: Option<SystemId>, at: Time) -> Result<()> {
        let cluster = &mut self.clusters[index];
        let Some(told) = told.filter(|told| cluster.system != Some(*told)) else { return Ok(()) };
        if let Some(ours) = cluster.system {
            if cluster.other_system.replace(told) != Some(told) {
                let (ours, theirs) = (ours.0, told.0);
                messages::tell(&Tell::ClusterChanged { cluster: cluster.title(), ours, theirs });
            }
            return Ok(());
        }
        let noted = self.found.get(&told).and_then(|found| found.cluster.as_ref());
        let is_other = |other: &usize| *other != index;
        let mut others = (0..self.clusters.len()).filter(is_other);
        let holder = others.find(|other| {
            let other = &self.clusters[*other];
            other.system == Some(told) || noted == Some(&other.name)
        });
        if let Some(holder) = holder {
            let error = Error::new(format!(
                "its system identifier {} is that of {}",
                told.0,
                match self.clusters[holder].name.as_str() {
                    "" => "the cluster in the arbiter's own directory".to_owned(),
                    name => format!("cluster \"{name}\""),
                }
            ))
            .hint("one arbiter process cannot serve a cluster and a copy of it: use a separate mc_arb for the copy, or create \
                   it again with initdb");
            self.give_up(index, error.clone());
            return Err(error);
        }
        // Of several ledgers of its name the server's word decides; where it names none, it is a rival of all.
        let name = &self.clusters[index].name;
        let recorded = self.found.iter().filter(|(_, found)| found.cluster.as_ref() == Some(name));
        let recorded = recorded.map(|(system, _)| *system).min();
        let system = if self.found.contains_key(&told) { told } else { recorded.unwrap_or(told) };
        self.take_ledger(index, system, at)?;
        match &self.clusters[index].core {
            Ok(_) => Ok(()),
            Err(why) => {
                let why = why.clone();
                self.disconnect(index);
                Err(why)
            }
        }
    }

    /// Serves a cluster no longer.
    pub(super) fn give_up(&mut self, index: usize, why: Error) {
        let cluster = &mut self.clusters[index];
        messages::tell(&Tell::ClusterNotServed { cluster: cluster.title(), why: why.clone() });
        cluster.core = Err(why);
        self.disconnect(index);
    }

    fn disconnect(&mut self, index: usize) {
        for server in Server::BOTH {
            if let Some(token) = self.clusters[index].servers[server.index()].connection.take() {
                self.close(token);
            }
        }
    }

    pub(super) fn send(&mut self, index: usize, to: Server, message: &Message) {
        self.send_body(index, to, wire::encode(message));
    }

    fn send_body(&mut self, index: usize, to: Server, body: Result<Vec<u8>>) {
        let Some(token) = self.clusters[index].servers[to.index()].connection else { return };
        let body = match body {
            Ok(body) => body,
            Err(error) => return messages::tell(&Tell::Warning(error)),
        };
        let Some(connection) = self.connection(token) else { return };
        match connection.send(&body) {
            Ok(()) if connection.has_unsent() => self.wait_for(token),
            Ok(()) => (),
            Err(error) => self.hang_up(token, &error),
        }
    }

    /// Waits for what the connection needs: always for input, for room where something is unsent.
    fn wait_for(&mut self, token: u64) {
        let Some(Source::Connection(connection)) = self.sources.get(token) else { return };
        let flags = match connection.has_unsent() {
            true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            false => epoll::EventFlags::IN,
        };
        let _ = epoll::modify(&self.epoll, connection.stream(), epoll::EventData::new_u64(token), flags);
    }

    /// Ends a connection that is of no more use. Strangers are reported, now and then.
    pub(super) fn hang_up(&mut self, token: u64, why: &Error) {
        let Some(connection) = self.close(token) else { return };
        match connection.stage {
            Stage::Member(cluster, server, _) => {
                let seen = &mut self.clusters[cluster].servers[server.index()];
                seen.connection.take_if(|current| *current == token);
                log::debug!("connection with \"{}\": {why}", self.clusters[cluster].names.id(server));
            }
            Stage::First | Stage::Keyed(..) if has_hung_up(why) => {
                log::debug!("connection from {}: {why}", connection.from);
            }
            Stage::First | Stage::Keyed(..) => {
                let at = now();
                if self.reported.is_none_or(|last| at.since(last) >= REPORT_INTERVAL_MS) {
                    self.reported = Some(at);
                    let why = match why.hint.as_str() {
                        "" => why.message.clone(),
                        hint => format!("{}; {hint}", why.message),
                    };
                    messages::tell(&Tell::LinkRefused { from: connection.from.to_string(), why });
                }
            }
        }
    }

    fn close(&mut self, token: u64) -> Option<Box<Connection>> {
        self.limited.remove(&token);
        let Some(Source::Connection(connection)) = self.sources.remove(token) else { return None };
        if connection.is_stranger() {
            self.waits_no_more(connection.from.ip().to_canonical(), connection.known);
        }
        Some(connection)
    }
}
