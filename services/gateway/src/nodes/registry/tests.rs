use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn device(n: u8) -> DeviceId {
    DeviceId::of_public_key(&[n; 32])
}

fn node(commands: &[&str]) -> Node {
    let commands: Vec<String> = commands.iter().map(|name| (*name).to_owned()).collect();
    Node {
        platform: "linux".to_owned(),
        declared: commands.clone(),
        approved: commands,
        ..Node::default()
    }
}

fn ask(key: &str) -> Ask {
    Ask {
        node: device(1),
        command: "system.which".to_owned(),
        params_json: Some("{}".to_owned()),
        principal: "operator/x".to_owned(),
        key: key.to_owned(),
    }
}

fn answered(text: &str) -> Outcome {
    Outcome::Answered {
        payload_json: Some(text.to_owned()),
    }
}

fn connected() -> Registry {
    let mut registry = Registry::default();
    registry.join(device(1), 10, node(&["system.which"]), 0);
    registry
}

fn begin(registry: &mut Registry, ask: &Ask, id: &str) -> Result<Begun, Refused> {
    registry.begin(ask, &Nodes::default(), id, 0)
}

#[test]
fn each_gate_refuses_what_it_is_for() {
    let judge = |change: &dyn Fn(&mut Node)| {
        let mut one = node(&["system.which", "camera.snap"]);
        change(&mut one);
        let command = if one.permissions.is_empty() {
            "system.which"
        } else {
            "camera.snap"
        };
        let config = Nodes {
            allow: vec!["camera.snap".to_owned()],
            deny: Vec::new(),
        };
        gates(&one, &config, command)
    };
    assert_eq!(judge(&|_| {}), Ok(()));
    assert_eq!(judge(&|node| node.declared.clear()), Err(Refused::NotDeclared));
    assert_eq!(judge(&|node| node.approved.clear()), Err(Refused::NotApproved));
    assert_eq!(
        judge(&|node| node.platform = "plan9".to_owned()),
        Err(Refused::NotAllowed)
    );
    let set = |granted: bool| {
        move |node: &mut Node| {
            node.permissions.insert("camera".to_owned(), granted);
        }
    };
    assert_eq!(judge(&set(true)), Ok(()));
    assert_eq!(judge(&set(false)), Err(Refused::Permission("camera")));
    let mut registry = Registry::default();
    assert_eq!(begin(&mut registry, &ask("k"), "i"), Err(Refused::NotConnected));
}

#[test]
fn only_the_asked_connection_answers_and_only_once() {
    let mut registry = connected();
    assert_eq!(
        begin(&mut registry, &ask("k"), "i"),
        Ok(Begun::Send { connection: 10 })
    );
    let mut answer = |connection, id: &str, named: &DeviceId| {
        registry.answer(&device(1), connection, id, named.as_str(), answered("1"), 0)
    };
    assert_eq!(answer(10, "i", &device(2)), Taken::OtherNode);
    assert_eq!(answer(11, "i", &device(1)), Taken::Ignored);
    assert_eq!(answer(10, "other", &device(1)), Taken::Ignored);
    assert_eq!(answer(10, "i", &device(1)), Taken::Yes);
    assert_eq!(answer(10, "i", &device(1)), Taken::Ignored, "late");
}

#[test]
fn the_same_key_asks_once_and_never_for_something_else() {
    let mut registry = connected();
    begin(&mut registry, &ask("k"), "i").unwrap();
    assert_eq!(
        begin(&mut registry, &ask("k"), "j"),
        Ok(Begun::Join { id: "i".to_owned() })
    );
    let mut other = ask("k");
    other.params_json = Some("{\"a\":1}".to_owned());
    assert_eq!(begin(&mut registry, &other, "j"), Err(Refused::OtherRequest));
    let mut stranger = other;
    stranger.principal = "operator/y".to_owned();
    assert_eq!(
        begin(&mut registry, &stranger, "j"),
        Ok(Begun::Send { connection: 10 })
    );
    registry.answer(&device(1), 10, "i", device(1).as_str(), answered("1"), 0);
    assert_eq!(
        begin(&mut registry, &ask("k"), "l"),
        Ok(Begun::Done(answered("1")))
    );
    let after = registry.begin(&ask("k"), &Nodes::default(), "m", KEPT_MS);
    assert_eq!(after, Ok(Begun::Send { connection: 10 }), "keys end");
}

#[test]
fn a_long_answer_is_not_kept_and_not_asked_again() {
    let mut registry = connected();
    begin(&mut registry, &ask("k"), "i").unwrap();
    let long = answered(&"x".repeat(MAX_KEPT_BYTES + 1));
    registry.answer(&device(1), 10, "i", device(1).as_str(), long, 0);
    assert_eq!(
        begin(&mut registry, &ask("k"), "j"),
        Ok(Begun::Done(Outcome::NotKept))
    );
}

#[test]
fn what_was_never_sent_leaves_its_key_free() {
    let mut registry = connected();
    begin(&mut registry, &ask("k"), "i").unwrap();
    registry.not_sent("i");
    assert_eq!(
        begin(&mut registry, &ask("k"), "j"),
        Ok(Begun::Send { connection: 10 })
    );
}

#[test]
fn a_newer_connection_replaces_the_older_whose_end_takes_nothing_of_it() {
    let mut registry = connected();
    begin(&mut registry, &ask("k"), "i").unwrap();
    let (old, ended) = registry.join(device(1), 11, node(&["system.which"]), 0);
    assert_eq!((old, ended), (Some(10), vec!["i".to_owned()]));
    begin(&mut registry, &ask("l"), "j").unwrap();
    assert_eq!(registry.leave(&device(1), 10, 0), (Vec::new(), false));
    assert_eq!(registry.nodes().count(), 1, "the new one stays");
    assert_eq!(registry.leave(&device(1), 11, 0), (vec!["j".to_owned()], true));
    assert_eq!(begin(&mut registry, &ask("m"), "n"), Err(Refused::NotConnected));
}

#[test]
fn a_node_is_asked_so_much_at_once_and_no_more() {
    let mut registry = connected();
    for n in 0..MAX_PER_NODE {
        begin(&mut registry, &ask(&n.to_string()), &n.to_string()).unwrap();
    }
    assert_eq!(begin(&mut registry, &ask("more"), "more"), Err(Refused::Busy));
    assert!(registry.time_out("0", 0));
    assert!(!registry.time_out("0", 0));
    assert!(begin(&mut registry, &ask("more"), "more").is_ok());
}

proptest! {
    #[test]
    fn counts_fit_and_memory_is_bounded(steps in prop::collection::vec((0_u8..6, 0_u8..4, any::<u8>()), 0..400)) {
        let mut registry = Registry::default();
        let mut fresh = 0_u32;
        for (at, (step, connection, n)) in steps.into_iter().enumerate() {
            let (now, of) = (at as u64 * 1_000, device(connection % 2));
            let connection = u64::from(connection);
            match step {
                0 => { registry.join(of, connection, node(&["system.which"]), now); }
                1 => { registry.leave(&of, connection, now); }
                2 | 3 => {
                    fresh += 1;
                    let mut one = ask(&n.to_string());
                    one.node = of;
                    let _ = registry.begin(&one, &Nodes::default(), &fresh.to_string(), now);
                }
                4 => {
                    let id = u32::from(n).to_string();
                    registry.answer(&of, connection, &id, of.as_str(), answered("1"), now);
                }
                _ => { registry.time_out(&u32::from(n).to_string(), now); }
            }
            for (device, link) in &registry.links {
                let under_way = registry.pending.values().filter(|one| one.node == *device && one.connection == link.connection);
                prop_assert_eq!(under_way.count(), link.under_way);
            }
            let live: BTreeSet<u64> = registry.links.values().map(|link| link.connection).collect();
            prop_assert!(registry.pending.values().all(|one| live.contains(&one.connection)), "nobody waits for the gone");
            prop_assert_eq!(registry.keys.len(), registry.pending.len() + registry.done.len());
        }
    }
}
