//! The page of the web console in a real browser, on a pair with an arbiter: each action of chapter 6 of the guide by clicking,
//! failover, split brain, a lost connection, a viewer, the keyboard alone, and accessibility.

use crate::force::force_both;
use crate::harness::browser::{Browser, ENTER, ESCAPE, SOON, SPACE, TAB, available, axe};
use crate::harness::client::Style;
use crate::harness::console::{PASSWORD, URL};
use crate::harness::pair::{Pair, Setup};
use crate::harness::wait_for;
use rustix::process::Signal;

fn pair_with_consoles() -> Pair {
    let pair = Setup::default().arbiter().up();
    pair.start_consoles();
    pair
}

#[track_caller]
fn wait_word(browser: &Browser, word: &str) {
    browser.wait_text("#word", word);
}

/// Disabling and enabling failover, a switch, a rebuild, detaching, starting and stopping either server (6.2 to 6.5): each
/// shows its plan first, changes the pair, and is in the timeline with the user's name.
#[test]
fn actions_by_clicking() {
    if !available() {
        return;
    }
    let pair = pair_with_consoles();
    let browser = Browser::open(&pair, 0);
    browser.log_in("dba");
    wait_word(&browser, "switchable");
    assert!(
        browser.text("#verdict-text").contains("If nd1 fails, nd2 takes over"),
        "{}",
        browser.text("#verdict-text")
    );

    browser.act("disable-failover-own");
    wait_word(&browser, "failover-disabled");
    pair.wait_word(1, "failover-disabled");
    browser.wait_text("#timeline-list", "dba ran mc_ctl disable-failover");
    browser.act("enable-failover-own");
    wait_word(&browser, "switchable");

    // what is refused stays visible with its reason
    browser.wait_text("#action-list [data-action=delete-own][aria-disabled=true]", "not possible");

    browser.act("switch-own");
    pair.wait_roles(1, "switched", ["none(inactivated primary)", "primary"]);
    wait_word(&browser, "switched");
    browser.wait_text("#picture", "INACTIVATED PRIMARY");
    browser.open_action("rebuild-own");
    browser.wait_text("dialog h3", "Plan");
    browser.run_action();
    browser.finish_action();
    wait_word(&browser, "switchable");
    pair.wait_roles(0, "switchable", ["standby", "primary"]);

    // the other server, over the link of the consoles: it is the primary, and this one takes over
    browser.act("stop-other");
    let primary = || pair.status(0).filter(|status| status.word == "switched" && status.rows[0].role == "primary");
    wait_for("nd1 takes over", SOON, primary);
    browser.wait_text("#picture", "PRIMARY, ALONE");
    browser.open_action("start-other");
    browser.run_action();
    let (_, output) = browser.end_action();
    println!("start of a server that has lost its role: {output}");
    pair.mc(1, &["rebuild", "--yes"]).expect(0, "mc_ctl rebuild");
    wait_word(&browser, "switchable");

    browser.act("detach-own");
    wait_word(&browser, "not-switchable");
    browser.act("start-other");
    wait_word(&browser, "switchable");

    browser.open_action("stop-own");
    browser.click("dialog [name=all]");
    browser.wait_text("dialog .cmd", "-a");
    browser.run_action();
    browser.finish_action();
    browser.wait_text("#verdict-text", "no answer from the controller");
    browser.open_action("start-own");
    browser.click("dialog [name=failover] option:nth-child(2)");
    browser.wait_text("dialog .cmd", "-f");
    browser.run_action();
    browser.wait_count("#job-close", 1);
    pair.start(1, &["-f"]);
    browser.finish_action();
    wait_word(&browser, "switchable");
    browser.assert_no_errors();
}

/// Chapter 6.6 and 6.1: the set-up is deleted on both servers, set up again with the wizard, and both are started.
#[test]
fn delete_and_set_up_again() {
    if !available() {
        return;
    }
    let pair = pair_with_consoles();
    let browser = Browser::open(&pair, 0);
    browser.log_in("dba");
    browser.open_action("stop-own");
    browser.click("dialog [name=all]");
    browser.wait_text("dialog .cmd", "-a");
    browser.run_action();
    browser.finish_action();

    browser.act("delete-own");
    let management = &pair.servers[0].management;
    assert!(!management.join("network.conf").exists() && management.join("web.users").exists());
    assert!(pair.servers[0].data.join("PG_VERSION").exists(), "the data is gone");
    browser.wait_text("#action-list [data-action=setup-own]", "Set up");

    browser.click("#action-list [data-action=setup-own]");
    browser.click("[data-setup=first]");
    browser.enter("dialog [name=peer]", &format!("nd2={}", pair.servers[1].address));
    browser.enter("dialog [name=self]", &format!("nd1={}", pair.servers[0].address));
    browser.enter("dialog [name=data]", pair.servers[0].data.to_str().expect("ASCII"));
    browser.wait_text("dialog .cmd", "--peer");
    browser.run_action();
    browser.wait_text("dialog .note.next", "pg_hba.conf");
    let output = browser.finish_action();
    assert!(management.join("network.conf").exists() && management.join("mc.key").exists(), "{output}");
    assert!(output.contains(pair.servers[1].address), "{output}");
    browser.wait_text("#where", "console on nd1");
    browser.assert_no_errors();
}

/// The page shows a failover before `mc_ctl status`, asked in a row from when it shows the failover, has answered twenty times,
/// which takes a second on an idle machine. A console that is stopped, as by a network that is cut, leaves a page that states
/// since when and shows nothing as current; when it is back, the page shows the present state by itself.
#[test]
fn failover_and_a_lost_connection() {
    if !available() {
        return;
    }
    let pair = pair_with_consoles();
    let browser = Browser::open(&pair, 1);
    browser.log_in("dba");
    wait_word(&browser, "switchable");
    browser.script(
        "new MutationObserver(() => { const word = document.getElementById('word').textContent;
           if (word === 'switched' && !window.at) window.at = Date.now(); })
         .observe(document.getElementById('word'), { childList: true, characterData: true, subtree: true });",
    );
    pair.kill_postmaster(0);
    wait_for("mc_ctl status shows the failover", SOON, || pair.status(1).filter(|status| status.word == "switched"));
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_millis() as i64;
    let shown = now();
    for _ in 0..20 {
        pair.mc(1, &["status"]);
    }
    let limit = now();
    wait_word(&browser, "switched");
    let page = browser.script("return window.at;").as_i64().expect("a time");
    println!("the page showed the failover {} ms after mc_ctl status", page - shown);
    assert!(page <= limit, "the page showed it {} ms after mc_ctl status", page - shown);
    browser.wait_text("#timeline-list", "nd2 was promoted and serves alone");
    browser.wait_text("#messages-list", "MCA00062");
    browser.wait_text("#verdict-text", "nd2 serves alone");

    pair.rebuild(0, &[]);
    wait_word(&browser, "switchable");
    pair.signal_console(1, Signal::STOP);
    browser.wait_text("#lost", "Connection lost since");
    wait_word(&browser, "last known: switchable");
    browser.wait_text("#where", "not connected");
    assert_eq!(browser.script("return document.body.classList.contains('stale') && getComputedStyle(document.getElementById('console')).filter;"), "grayscale(1)");
    browser.screenshot("lost-1280-light");
    pair.mc(1, &["disable-failover"]).expect(0, "mc_ctl disable-failover");
    pair.signal_console(1, Signal::CONT);
    wait_word(&browser, "failover-disabled");
    browser.wait_count("#lost", 0);
    browser.wait_text("#live", "live");

    // killed and started again: the sessions have ended, and the page asks for a login
    pair.signal_console(1, Signal::KILL);
    browser.wait_text("#lost", "Connection lost since");
    wait_for("the console has ended", SOON, || pair.console(1).is_empty().then_some(()));
    pair.start_console(1);
    browser.wait_count("#login", 1);
    browser.log_in("dba");
    wait_word(&browser, "failover-disabled");
    browser.assert_no_errors();
}

/// Chapter 6.8: both servers have run alone, which an arbiter would have prevented. The page shows both, what to do, and no green.
#[test]
fn split_brain() {
    if !available() {
        return;
    }
    let pair = Setup::default().conf("heartbeat_error_action = message").up();
    pair.start_consoles();
    let client = pair.client(Style::Everywhere);
    let browser = Browser::open(&pair, 0);
    browser.log_in("dba");
    wait_word(&browser, "switchable");
    force_both(&pair, &client);
    wait_word(&browser, "split-brain");
    browser.wait_count("#split-brain", 1);
    let text = browser.text("#split-brain");
    for expected in ["nd1", "nd2", "standalone", "Stop all applications", "mc_ctl rebuild --dry-run", "MCA00062"] {
        assert!(text.contains(expected), "{expected} is missing: {text}");
    }
    assert_eq!(browser.count("#verdict.bad"), 1);
    accessible(&browser, "split-brain");
    for (width, dark) in [(320, false), (768, true), (1440, false)] {
        picture(&browser, "split-brain", width, dark);
    }
    browser.click("[data-key=explain-split]");
    browser.wait_text("dialog dl", "What to do");
    browser.assert_no_errors();
}

/// A viewer sees everything and no action; a request with the viewer's own token is rejected. Text of the server is never markup.
#[test]
fn a_viewer_cannot_act() {
    if !available() {
        return;
    }
    let pair = pair_with_consoles();
    let browser = Browser::open(&pair, 0);
    browser.log_in("guest");
    wait_word(&browser, "switchable");
    browser.wait_text("#timeline-list", "The pair is mirrored");
    assert_eq!(browser.count("[data-action]"), 0, "a viewer sees actions");
    assert_eq!(browser.count("#actions"), 0);
    let status = browser.script_later(
        "fetch('/api/session').then(a => a.json()).then(s => fetch('/api/actions/switch', { method: 'POST', body: '{\"parameters\":{}}',
           headers: { 'Content-Type': 'application/json', 'X-CSRF-Token': s.csrf } })).then(a => done(a.status), e => done(String(e)));",
    );
    assert_eq!(status, 403);
    // the middle of the box is the line of the controller
    browser.click("[data-key=server-0]");
    browser.wait_text("dialog h3", "unharmed");
    browser.click("dialog select option:nth-child(1)");
    browser.wait_text("dialog h3", "takes over");
    browser.keys([ESCAPE]);
    browser.wait_count("dialog[open]", 0);
    browser.click("#logout");
    browser.wait_count("#login", 1);
    assert_eq!(browser.count("#console"), 0);
    browser.go(URL);
    browser.wait_count("#login", 1);
    browser.assert_no_errors();
}

/// From the login to the end of an action without a pointer: what has the focus shows it, a dialog keeps it until Esc or its
/// end, and it returns to where it was.
#[test]
fn keyboard_only() {
    if !available() {
        return;
    }
    let pair = pair_with_consoles();
    let browser = Browser::open(&pair, 0);
    browser.go(URL);
    browser.wait_count("#login", 1);
    tab_to(&browser, "user");
    browser.keys("dba".chars());
    tab_to(&browser, "password");
    browser.keys(PASSWORD.chars().chain([ENTER]));
    wait_word(&browser, "switchable");
    browser.wait_count("#action-list [data-action=disable-failover-own]:not([aria-disabled])", 1);

    tab_to(&browser, "server-1");
    browser.keys([ENTER]);
    browser.wait_text("dialog h3", "nd1 continues");
    browser.keys([ESCAPE]);
    browser.wait_count("dialog[open]", 0);
    assert_eq!(focus(&browser), "server-1", "the focus returns");

    // every action can be reached, in the order of the page
    let actions = browser
        .script("return [...document.querySelectorAll('#action-list button')].map(b => b.dataset.key).join(' ');");
    for action in actions.as_str().expect("keys").split(' ') {
        tab_to(&browser, action);
    }
    for _ in 0..30 {
        if focus(&browser) == "act-disable-failover-own" {
            break;
        }
        browser.back_tab();
    }
    browser.keys([SPACE]);
    browser.wait_count("#run:enabled", 1);
    for _ in 0..6 {
        browser.keys([TAB]);
        assert_eq!(
            browser.script("return document.activeElement.closest('dialog') !== null;"),
            true,
            "the focus left the dialog"
        );
    }
    tab_to(&browser, "run");
    browser.keys([ENTER]);
    browser.wait_text("dialog [role=status]", "Done.");
    tab_to(&browser, "job-close");
    browser.keys([ENTER]);
    browser.wait_count("dialog[open]", 0);
    assert_eq!(focus(&browser), "act-disable-failover-own");
    wait_word(&browser, "failover-disabled");
    browser.assert_no_errors();
}

/// No violation of axe-core in any state and dialog, and no text beyond the width of a telephone; pictures of each.
#[test]
fn accessible_at_every_width() {
    if !available() {
        return;
    }
    let pair = pair_with_consoles();
    let browser = Browser::open(&pair, 1);
    browser.go(URL);
    browser.wait_count("#login", 1);
    accessible(&browser, "login");
    browser.log_in("dba");
    wait_word(&browser, "switchable");
    browser.click("[data-key=what-if-all]");
    browser.wait_count("[data-key=fault-link]", 1);
    for (width, dark) in [(320, false), (320, true), (768, false), (768, true), (1440, false), (1440, true)] {
        picture(&browser, "switchable", width, dark);
    }
    pair.kill_postmaster(0);
    wait_word(&browser, "switched");
    browser.wait_text("#timeline-list", "nd2 was promoted");
    browser.wait_text("#picture", "INACTIVATED PRIMARY");
    for (width, dark) in [(320, true), (768, false), (1440, false), (1440, true)] {
        picture(&browser, "switched", width, dark);
    }
    browser.open_action("stop-own");
    accessible(&browser, "stop");
    browser.screenshot("dialog-stop");
    browser.keys([ESCAPE]);
    browser.click("#action-list [data-action=setup-own]");
    browser.click("[data-setup=join]");
    browser.wait_count("dialog textarea", 1);
    accessible(&browser, "setup");
    browser.keys([ESCAPE]);
    browser.click("[data-key=replication]");
    browser.wait_count("dialog select", 1);
    accessible(&browser, "what-if");
    browser.assert_no_errors();
}

/// A picture at a width, which must hold everything, without a violation.
#[track_caller]
fn picture(browser: &Browser, name: &str, width: u32, dark: bool) {
    browser.emulate(width, dark);
    wait_for("the drawing has the new width", SOON, || {
        let drawn = browser.script(
            "const p = document.getElementById('picture'), s = p.querySelector('svg'); return s !== null && Math.abs(s.viewBox.baseVal.width - p.clientWidth) < 2;",
        );
        (drawn == true).then_some(())
    });
    let beyond = browser.script("return document.documentElement.scrollWidth - innerWidth;");
    assert!(beyond.as_i64() <= Some(0), "{name} at {width}: the page is {beyond} px too wide");
    accessible(browser, name);
    browser.screenshot(&format!("{name}-{width}-{}", if dark { "dark" } else { "light" }));
}

#[track_caller]
fn accessible(browser: &Browser, what: &str) {
    let Some(axe) = axe() else { return };
    let violations = browser.script_later(&format!(
        "{axe};\naxe.run(document, {{ resultTypes: ['violations'] }}).then(r => done(r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' '))), e => done([String(e)]));"
    ));
    assert_eq!(violations, serde_json::json!([]), "{what}");
}

/// The key or id of what has the focus, which must show it.
#[track_caller]
fn focus(browser: &Browser) -> String {
    let focus = browser.script(
        "const e = document.activeElement, c = getComputedStyle(e); const visible = e instanceof SVGElement ? c.stroke !== 'rgba(0, 0, 0, 0)' : c.outlineStyle !== 'none';
         return [e.dataset.key || e.id || e.tagName, visible || e.tabIndex < 0 || !e.matches(':focus-visible')];",
    );
    assert_eq!(focus[1], true, "the focus on {focus} is not visible");
    focus[0].as_str().expect("a name").to_owned()
}

#[track_caller]
fn tab_to(browser: &Browser, key: &str) {
    for _ in 0..120 {
        if focus(browser) == key {
            return;
        }
        browser.keys([TAB]);
    }
    panic!("Tab does not reach {key}");
}
