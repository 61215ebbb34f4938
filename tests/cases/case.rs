//! One server, whose writes succeed at once, and whatever the others say to it.

use mirroring_controller::fsm::event::*;
use mirroring_controller::fsm::node::Node;
use mirroring_controller::fsm::types::*;

pub const ME: Server = Server::First;
pub const PEER: Server = Server::Second;
pub const MY_DATA: DataId = DataId(11);
pub const PEER_DATA: DataId = DataId(22);
pub const ARBITER: LedgerId = LedgerId(99);

/// The server under test, and what it has ordered.
pub struct Case {
    pub node: Node,
    pub now: u64,
    pub sent: Vec<(Member, Message)>,
    pub jobs: Vec<(JobId, Job)>,
    pub calls: Vec<(JobId, UserCommand)>,
    pub durable: Durable,
    pub said: Vec<CoreMessage>,
    pub beat: u64,
    pub echo: u64,
    pub writes: bool,
    pub replies: Vec<Reply>,
    pub nudged: Option<JobId>,
    /// How many jobs have ended.
    pub ended: usize,
}

pub fn settings(arbiter: bool, on_silence: OnSilence) -> Settings {
    Settings {
        me: ME,
        arbiter,
        heartbeat_interval_ms: 100,
        heartbeat_timeout_ms: 300,
        heartbeat_detection_ms: 1200,
        instance_detection_ms: 1200,
        disk_detection_ms: 1200,
        on_silence,
        on_instance_silence: OnInstanceSilence::Failover,
        isolated_primary_stops: false,
        isolated_restart: false,
        startup_wait_ms: 5000,
        rebuild_auto: true,
        stop_detached_standby: false,
        fencing: false,
        hooks: Hooks::default(),
        seed: 0x1234_5678_9abc_def0,
    }
}

pub fn view(term: u64, primary: Server, mode: Mode) -> View {
    View { term: Term(term), primary, mode, data: [Some(MY_DATA), Some(PEER_DATA)], arbiter: None, forced: false }
}

pub fn ledger(id: u64, data: DataId, view: View) -> Ledger {
    let data = DataIdentity { id: data, fingerprint: 5, inode_print: 4, checkpoint: Lsn(100) };
    Ledger { system: SystemId(7), id: LedgerId(id), data, view, promised: view.term }
}

pub fn data_dir(standby_signal: bool, running: bool) -> DataDir {
    DataDir {
        system: SystemId(7),
        fingerprint: 5,
        inode_print: 4,
        checkpoint: Lsn(100),
        checkpoint_timeline: Timeline(1),
        min_recovery_timeline: Timeline(if standby_signal { 1 } else { 0 }),
        state: if standby_signal { ControlState::InArchiveRecovery } else { ControlState::InProduction },
        standby_signal,
        backup_label: false,
        mark: Some(LedgerId(1)),
        incomplete: false,
        unnamed: false,
        running,
    }
}

pub fn primary(names: Names) -> Instance {
    let standby = Some(StandbyRow { streaming: true, sync: true, flushed: Lsn(200), reply: 1 });
    Instance::Primary { timeline: Timeline(1), flushed: Lsn(200), names, waiting: false, standby }
}

impl Case {
    /// A controller that was restarted by its watcher while its ledger held this view.
    pub fn new(settings: Settings, view: View, data: Option<DataDir>) -> Case {
        let notes = Notes { failover: Failover { version: 2, enabled: true }, wanted: true, ..Notes::default() };
        Case::booted(settings, Durable { ledger: ledger(1, MY_DATA, view), notes }, data)
    }

    /// The same with this on its disk.
    pub fn booted(settings: Settings, durable: Durable, data: Option<DataDir>) -> Case {
        let boot = Boot {
            by: StartedBy::Watcher,
            durable: Some(durable),
            data,
            name: "one".into(),
            address: "one:5432".into(),
            peer_name: "two".into(),
            start_id: 3,
            high_water: None,
        };
        let mut case = Case {
            node: Node::new(settings),
            now: 1000,
            sent: Vec::new(),
            jobs: Vec::new(),
            calls: Vec::new(),
            durable,
            said: Vec::new(),
            beat: 1 << 20,
            echo: 0,
            writes: true,
            replies: Vec::new(),
            nudged: None,
            ended: 0,
        };
        case.step(Event::Boot(Box::new(boot)));
        case
    }

    pub fn step(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.node.step(Time(self.now), event) {
                match action {
                    Action::Send(to, message) => {
                        if let (Member::Server(_), Message::Heartbeat(heartbeat)) = (to, &message) {
                            self.echo = heartbeat.seq;
                        }
                        self.sent.push((to, message));
                    }
                    Action::Store(seq, durable, _) if self.writes => {
                        self.durable = *durable;
                        events.push(Event::Stored(seq));
                    }
                    // Nothing has gone back here.
                    Action::Run(id, Job::CompareWal(_)) => {
                        let found = WalFound { own: Contains::Yes, peer: Contains::Yes, end: None };
                        events.push(Event::Done(id, Outcome::Wal(found)));
                    }
                    Action::Run(id, job) => self.jobs.push((id, job)),
                    Action::Call(id, command) => self.calls.push((id, *command)),
                    Action::Log(say) => self.said.push(say),
                    Action::Nudge(id) => self.nudged = Some(id),
                    Action::Reply(_, reply) => self.replies.push(reply),
                    _ => {}
                }
            }
        }
    }

    /// Time goes by, with what the other server says and the instance shows every 50 ms.
    pub fn pass(&mut self, ms: u64, told: Option<&Heartbeat>, reading: Option<Instance>) {
        for _ in 0..ms / 50 {
            self.now += 50;
            if let Some(told) = told {
                self.hear(told);
            }
            if let Some(reading) = reading {
                self.step(Event::Instance(reading));
            }
            self.step(Event::Disk(Disk::Good));
            self.step(Event::Tick);
        }
    }

    pub fn hear(&mut self, told: &Heartbeat) {
        self.beat += 1;
        let heartbeat = Heartbeat { seq: self.beat, echo: self.echo, ..told.clone() };
        self.step(Event::Heard(Member::Server(PEER), Message::Heartbeat(Box::new(heartbeat))));
    }

    /// The newest job, which ends so.
    pub fn done(&mut self, outcome: Outcome) {
        let id = self.jobs.last().expect("a job was ordered").0;
        self.ended = self.jobs.len();
        self.step(Event::Done(id, outcome));
    }

    pub fn job(&self) -> Option<&Job> {
        self.jobs.last().map(|(_, job)| job)
    }

    pub fn view(&self) -> View {
        self.durable.ledger.view
    }

    /// The views proposed to this member.
    pub fn proposed(&self, to: Member) -> Vec<View> {
        let proposal = |(whom, message): &(Member, Message)| match message {
            Message::Propose { view, .. } if *whom == to => Some(*view),
            _ => None,
        };
        self.sent.iter().filter_map(proposal).collect()
    }

    /// The other server accepts what was proposed to it last.
    pub fn accepted(&mut self) -> View {
        let view = *self.proposed(Member::Server(PEER)).last().expect("a proposal was sent");
        let ledger = Some(ledger(2, PEER_DATA, view));
        self.step(Event::Heard(Member::Server(PEER), Message::Answer { ledger }));
        view
    }
}

/// What a healthy standby tells whose ledger holds this view.
pub fn standby(view: View) -> Heartbeat {
    Heartbeat {
        seq: 0,
        echo: 0,
        start_id: 9,
        wal: Default::default(),
        system: Some(SystemId(7)),
        ledger: Some(ledger(2, PEER_DATA, view)),
        role: Role::Standby,
        instance: Health::Well,
        disk: String::new(),
        failure: String::new(),
        full: String::new(),
        space: String::new(),
        streaming: true,
        timeline: Timeline(1),
        lsn: Lsn(200),
        replayed: Lsn(200),
        take_over: false,
        confirm: false,
        answered_ms: 0,
        shutdown_checkpoint: None,
        unmirrored: false,
        proving: false,
        rebuilds: false,
        detached: false,
        failover: Failover { version: 2, enabled: true },
        on_silence: OnSilence::Message,
        detection_ms: 1200,
        promoted: false,
        arbiter: (None, Term(0)),
        name: "two".into(),
        address: "two:5432".into(),
        client_address: String::new(),
        would_grant: false,
        why: String::new(),
    }
}
