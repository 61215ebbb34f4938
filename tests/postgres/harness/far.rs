//! Distance: what goes between the hosts is delayed and partly lost, by a relay in this process.
//!
//! Not `tc qdisc netem`, which many small kernels (virtual machines of CI services) are built without. The hosts reach
//! each other through VXLAN devices instead, whose frames travel in UDP to the relay; it keeps each one back for as long
//! as the distance asks, drops some, and passes on the rest. Those are real frames of the kernel's own TCP: what is lost
//! is retransmitted by it. The device offers to fill in checksums and leaves that to hardware which is not there, so the
//! relay does. The clients in the middle, and all host-local traffic, are not delayed.

use super::net::{ADDRESSES, ADMIN, HUB, Space};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// VXLAN's port.
const PORT: u16 = 4789;
/// One way at most so many frames are on the way.
const FRAMES: usize = 20_000;

#[derive(Default)]
struct Distance {
    delay_ms: AtomicU64,
    loss_percent: AtomicU64,
    relayed: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

/// The relay; it ends when dropped.
pub struct Far {
    distance: Arc<Distance>,
}

impl Far {
    /// Wires the hosts to it, without a distance yet.
    pub fn new(hub: &Space, hosts: &[Space]) -> Far {
        for (n, host) in hosts.iter().enumerate() {
            let mine = ADDRESSES[ADMIN][n];
            let mut lines = format!("link add vx0 type vxlan id 1 local {mine} remote {HUB} dstport {PORT}\n");
            // no super-packets: what is longer than a frame would never come out of the relay
            lines += "link set dev vx0 mtu 1450 gso_max_segs 1\nlink set vx0 up\n";
            for other in (0..hosts.len()).filter(|o| *o != n) {
                lines += &format!("route add {}/32 dev vx0 src {mine}\n", ADDRESSES[ADMIN][other]);
            }
            host.batch("ip", &lines);
        }
        let distance = Arc::new(Distance::default());
        let socket = hub.inside(|| UdpSocket::bind((HUB, PORT)).expect("could not bind the relay"));
        let hosts: Vec<Ipv4Addr> = (0..hosts.len()).map(|n| ADDRESSES[ADMIN][n].parse().expect("an address")).collect();
        let shared = Arc::clone(&distance);
        std::thread::spawn(move || relay(&socket, &hosts, &shared));
        Far { distance }
    }

    /// From now on every frame takes so long one way, and of 100 so many are lost.
    pub fn set(&self, delay: Duration, loss_percent: u64) {
        self.distance.delay_ms.store(delay.as_millis() as u64, SeqCst);
        self.distance.loss_percent.store(loss_percent, SeqCst);
    }

    /// What was set.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.distance.delay_ms.load(SeqCst))
    }

    /// How many frames were passed on, and how many dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.distance.relayed.load(SeqCst), self.distance.lost.load(SeqCst))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.distance.stop.store(true, SeqCst);
    }
}

/// A frame on its way: when it is due, its number, whose it is.
type Waiting = (Instant, u64, Ipv4Addr, Vec<u8>);

/// Passes every frame on to all other hosts, as a hub does; whose it is not drops it.
fn relay(socket: &UdpSocket, hosts: &[Ipv4Addr], distance: &Distance) {
    let mut waiting: BinaryHeap<Reverse<Waiting>> = BinaryHeap::new();
    let mut buffer = vec![0; 65536];
    let mut random = std::process::id().into();
    let mut number = 0;
    while !distance.stop.load(SeqCst) {
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, to, frame))) = waiting.pop() else { break };
            // a host that is off or cut is no concern of the relay's
            let _ = socket.send_to(&frame, (to, PORT));
        }
        let wait = waiting.peek().map_or(Duration::from_millis(50), |Reverse((due, ..))| *due - now);
        let _ = socket.set_read_timeout(Some(wait.clamp(Duration::from_micros(100), Duration::from_millis(50))));
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let due = Instant::now() + Duration::from_millis(distance.delay_ms.load(SeqCst));
        if chance(&mut random) < distance.loss_percent.load(SeqCst) || waiting.len() > FRAMES {
            distance.lost.fetch_add(1, SeqCst);
            continue;
        }
        distance.relayed.fetch_add(1, SeqCst);
        fill_in_checksum(&mut buffer[..length]);
        for to in hosts.iter().filter(|h| from.ip() != **h) {
            number += 1;
            waiting.push(Reverse((due, number, *to, buffer[..length].to_vec())));
        }
    }
}

/// Writes the checksum of the TCP or UDP packet over IPv4 in a VXLAN frame; leaves all else alone.
fn fill_in_checksum(frame: &mut [u8]) {
    const IP: usize = 8 + 14;
    if frame.len() < IP + 20 || frame[IP - 2..IP] != [8, 0] {
        return;
    }
    let packet = IP + usize::from(frame[IP] & 15) * 4;
    let end = IP + usize::from(u16::from_be_bytes([frame[IP + 2], frame[IP + 3]]));
    let at = match frame[IP + 9] {
        6 => packet + 16,
        17 => packet + 6,
        _ => return,
    };
    if end > frame.len() || at + 2 > end {
        return;
    }
    frame[at..at + 2].fill(0);
    let words = |bytes: &[u8]| bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    let addresses: u32 = words(&frame[IP + 12..IP + 20]);
    let content: u32 = words(&frame[packet..end]);
    let mut sum = addresses + u32::from(frame[IP + 9]) + (end - packet) as u32 + content;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// 0 to 99, by xorshift.
fn chance(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % 100
}
