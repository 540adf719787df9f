//! A right that is missing is named, at the start and in the middle of the work.

use std::thread;

use chaos::cluster::acls::Acl;
use chaos::cluster::instance::{Instance, InstanceOptions};
use chaos::cluster::wait;

use crate::site::{LIMIT, Login, Site, acls, grant, name, needed, settle, text, user};

/// Users of this test begin here.
const FIRST: usize = 4;

#[test]
fn each_right_that_is_missing_is_named_at_the_start() {
    let site = Site::new("lacks");
    let database = site.database();
    let options = |number: usize| {
        let login = Login::scram(&user(FIRST + number));
        let options = site.instance(number, &login);
        options.set("postgres.url", database.as_str())
    };
    let rights = needed(&options(0), "User:nobody");
    assert!(rights.len() > 25, "{rights:?}");
    let all_but_one = |number: usize| {
        let others = rights.iter().enumerate();
        let others = others.filter(move |(index, _)| *index != number);
        others.map(move |(_, acl)| Acl {
            principal: format!("User:{}", user(FIRST + number)),
            ..acl.clone()
        })
    };
    let granted: Vec<Acl> = (0..rights.len()).flat_map(all_but_one).collect();
    // The last one lacks the right on transactional ids, which a plan does not need.
    grant(&granted, &options(rights.len() - 1));
    let check = |number: usize| {
        let (right, user) = (&rights[number], user(FIRST + number));
        let missing = name(right);
        let mut commands = vec![&["run"][..]];
        if right.operation == "DESCRIBE_CONFIGS" {
            commands.push(&["topics", "plan"]);
        }
        if right.operation == "READ" && !right.resource_name.ends_with("-sink") {
            commands.push(&["verify"]);
        }
        for command in commands {
            let output = settle(&options(number), command);
            let said = text(&output);
            let named = match command {
                // It needs less of the group.
                ["verify"] if right.resource_type == "GROUP" => missing.replace("Read", "Describe"),
                _ => missing.clone(),
            };
            assert_eq!(output.status.code(), Some(77), "{missing}: {said}");
            let lacks = format!("User:{user} lacks");
            assert!(said.contains(&lacks), "{missing}: {said}");
            assert!(said.contains(&named), "{missing}: {said}");
            for other in rights.iter().filter(|other| *other != right) {
                let named = named_alone(&said, &name(other));
                assert!(!named, "{missing} is missing, not {}: {said}", name(other));
            }
        }
    };
    let check = &check;
    let count = rights.len();
    thread::scope(|scope| {
        for first in 0..3 {
            scope.spawn(move || (first..count).step_by(3).for_each(check));
        }
    });
}

/// Whether a right is named, and not one whose name begins like it.
fn named_alone(said: &str, right: &str) -> bool {
    said.match_indices(right).any(|(at, _)| {
        let next = said[at + right.len()..].chars().next();
        !next.is_some_and(|next| next.is_alphanumeric() || "-_.:".contains(next))
    })
}

/// Takes a right away from a service at work; it ends and names it.
fn stops(site: &Site, options: &InstanceOptions, right: &Acl, seed: u64) {
    let instance = Instance::start(options.clone()).unwrap();
    instance.wait_ready(LIMIT).unwrap();
    site.send(seed, 200);
    acls().take_away(std::slice::from_ref(right)).unwrap();
    // Who has nothing to do does not notice, and the broker may hear of it a moment after the tool.
    let mut seeds = seed + 1..;
    let status = wait::until("its end", LIMIT, || {
        site.send(seeds.next().unwrap(), 50);
        Ok(instance.exit_status())
    });
    let log = std::fs::read_to_string(instance.log()).unwrap();
    assert_eq!(status.unwrap().code(), Some(77), "{}: {log}", name(right));
    let lacks = format!("{} lacks {}", right.principal, name(right));
    let mut errors = log.lines().filter(|line| line.contains("\"ERROR\""));
    assert!(errors.any(|line| line.contains(&lacks)), "{lacks}: {log}");
    std::fs::remove_file(instance.log()).unwrap();
    grant(std::slice::from_ref(right), options);
}

#[test]
fn a_right_that_is_taken_away_ends_the_service_by_its_name() {
    let site = Site::new("loses");
    let database = site.database();
    let login = Login::scram("user-3");
    let options = site.instance(0, &login);
    let options = options.set("postgres.url", database.as_str());
    let rights = needed(&options, &login.principal);
    grant(&rights, &options);
    let names = &site.names;
    let lost = [
        ("READ", &names.source),
        ("READ", &names.rules),
        ("WRITE", &names.settlements),
        ("WRITE", &names.changelog),
        ("READ", &names.application_id),
        ("READ", &format!("{}-sink", names.application_id)),
        ("WRITE", &format!("{}:", names.application_id)),
    ];
    for (seed, (operation, resource)) in (0..).step_by(2).zip(lost) {
        let mut all = rights.iter();
        let right = all.find(|acl| acl.operation == operation && acl.resource_name == *resource);
        stops(&site, &options, right.unwrap(), seed);
    }
    // Nothing of what was interrupted is lost or there twice.
    let instance = Instance::start(options).unwrap();
    instance.wait_ready(LIMIT).unwrap();
    site.prove(&[instance], Some(database));
}
