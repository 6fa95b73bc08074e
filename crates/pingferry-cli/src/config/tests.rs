use std::collections::BTreeSet;

use super::file::{parse, quoted};
use super::model::{Ingress, Settings};
use super::validate;

/// The file that is installed as an example.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/pingferry.toml");

fn example() -> String {
    std::fs::read_to_string(EXAMPLE).unwrap()
}

/// The key in a line such as `key = value` or `#key = value`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start_matches('#').split_once(" = ")?;
    key.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()).then_some(key)
}

/// The lines of the example that set a key or begin a table, all in force.
fn lines_in_force(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.trim_start_matches('#'));
    lines.filter(|line| key(line).is_some() || line.starts_with("[[")).collect()
}

/// The keys of a structure, as its error for an unknown one lists them.
fn keys(unknown: &str) -> BTreeSet<String> {
    let error = toml::from_str::<Settings>(unknown).unwrap_err();
    quoted(error.message()).skip(1).map(str::to_owned).collect()
}

#[test]
fn an_error_names_line_and_key() {
    for (text, message) in [
        (
            "tun = \"ping0\"\n\nidle_timout = \"5s\"",
            "unknown key `idle_timout` at line 3; did you mean `idle_timeout`?",
        ),
        ("gateways = []", "unknown key `gateways` at line 1; did you mean `gateway`?"),
        ("policies = []", "unknown key `policies` at line 1; did you mean `policy`?"),
        ("colour = \"red\"", "unknown key `colour` at line 1"),
        ("[proxy]\nworkers = 2", "unknown key `proxy` at line 1"),
        ("config = \"x\"", "unknown key `config` at line 1"),
        ("allow = [\"::1\"]", "unknown key `allow` at line 1; write rules as `policy = [\"allow DEST\"]`"),
        (
            "\nidle_timeout = \"soon\"",
            "`idle_timeout` at line 2: `soon` is not valid: expected a duration from 1ms to 1year, such as 500ms or 1s",
        ),
        (
            "busy_poll = \"2s\"",
            "`busy_poll` at line 1: `2s` is not valid: expected a duration from 0s to 1s, such as 500ms or 1s",
        ),
        ("idle_timeout = 60", "`idle_timeout` at line 1: invalid type: integer `60`, expected a string"),
        ("workers = \"2\"", "`workers` at line 1: invalid type: string \"2\", expected a whole number from 1 to 256"),
        ("workers = 0", "`workers` at line 1: invalid value: integer `0`, expected a whole number from 1 to 256"),
        (
            "max_flows = -1",
            "`max_flows` at line 1: invalid value: integer `-1`, expected a whole number from 1 to 4294967295",
        ),
        ("mtu = 67", "`mtu` at line 1: invalid value: integer `67`, expected a whole number from 68 to 65535"),
        ("sockets = \"many\"", "`sockets` at line 1: unknown variant `many`, expected `shared` or `per-flow`"),
        (
            "log_level = \"loud\"",
            "`log_level` at line 1: unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
        ("gateway = \"192.0.2.1\"", "`gateway` at line 1: invalid type: string \"192.0.2.1\", expected a sequence"),
        (
            "gateway = [\"192.0.2.1\", \"192.0.2.2\"]",
            "`gateway` at line 1: 192.0.2.1 and 192.0.2.2 are of the same family; give one for each family",
        ),
        (
            "source = [\"fd00::/8\",\n\"here\"]",
            "`source` at line 2: `here` is not valid: expected a prefix such as 192.0.2.0/24",
        ),
        ("no_sandbox = \"yes\"", "`no_sandbox` at line 1: invalid type: string \"yes\", expected a boolean"),
        ("policy = \"allow ::1\"", "`policy` at line 1: invalid type: string \"allow ::1\", expected a sequence"),
        (
            "policy = [\n  \"allow ::1\",\n  \"permit ::2\",\n]",
            "`policy` at line 3: `permit ::2` is not valid: expected `allow DEST`, `deny DEST`, or either with `from \
             SOURCE`",
        ),
        ("workers = 1\nworkers = 2", "line 2: duplicate key"),
        ("workers =\n", "line 1: string values must be quoted, expected literal string"),
    ] {
        assert_eq!(parse(text).unwrap_err(), message, "{text}");
    }
}

#[test]
fn an_error_in_an_ingress_names_its_line_too() {
    let first = "workers = 1\n[[ingress]]\ntun = \"a\"\n\n[[ingress]]\n";
    for (text, message) in [
        (
            "unix = \"/u\"\nmtu = 1",
            "`mtu` at line 7: invalid value: integer `1`, expected a whole number from 68 to 65535",
        ),
        ("unix = \"/u\"\ngatway = []", "unknown key `gatway` at line 7; did you mean `gateway`?"),
        ("unix = \"/u\"\nworkers = 2", "unknown key `workers` at line 7"),
        ("unix = [\"/u\"]", "`unix` at line 6: invalid type: sequence, expected path string"),
        (
            "unix = \"/u\"\npolicy = [\"deny\"]",
            "`policy` at line 7: `deny` is not valid: expected `allow DEST`, `deny DEST`, or either with `from SOURCE`",
        ),
        ("unix = \"/u\"\ndomain = [1]", "`domain` at line 7: expected a number or a name"),
        ("mtu = 1400", "`ingress` at line 5: an ingress needs `tun` or `unix`"),
        (
            "tun = \"b\"\nunix = \"/u\"",
            "`ingress` at line 5: an ingress has `tun` or `unix`, not both: write a table for each",
        ),
        ("unix = \"/u\"\nroute = [\"default\"]", "`ingress` at line 5: `route` needs `tun`: it is about a TUN device"),
        (
            "tun = \"b\"\nnetns = \"/n\"\npid = 1",
            "`ingress` at line 5: `netns` and `pid` cannot be used together: both name the namespace of the TUN device",
        ),
    ] {
        assert_eq!(parse(&format!("{first}{text}")).unwrap_err(), message, "{text}");
    }
    assert!(parse("ingress = [1]").unwrap_err().starts_with("`ingress` at line 1: "));
}

#[test]
fn settings_are_checked_together() {
    for (text, message) in [
        ("tun = \"a\"", ""),
        ("[[ingress]]\ntun = \"a\"", ""),
        ("workers = 2", "nothing to serve"),
        ("unix = [\"/u\"]\nnetns = \"/n\"", "`netns` needs `tun`"),
        ("tun = \"ping%d\"", ""),
        ("tun = \"sixteen-bytes-xx\"", "`tun` = \"sixteen-bytes-xx\": a device has a name of 1 to 15 bytes"),
        ("tun = \"\"", "`tun` = \"\": a device has a name"),
        ("tun = \"a b\"", "`tun` = \"a b\": a device has a name"),
        ("tun = \"a\"\nnetns = \"/n\"\npid = 1", "`netns` and `pid` cannot be used together"),
        ("[[ingress]]\ntun = \"a\"\ndomain = 1\n[[ingress]]\nunix = \"/u\"\ndomain = 1", ""),
        ("workers = 2\n[[ingress]]\nunix = \"/a\"\ndomain = 1\n[[ingress]]\nunix = \"/b\"\ndomain = 1", ""),
        ("tun = \"a\"\n[[ingress]]\ntun = \"a\"", "TUN device a is given twice"),
        ("unix = [\"/u\", \"/u\"]", "Unix socket /u is given twice"),
        ("tun = \"a\"\n[[ingress]]\ntun = \"a\"\nnetns = \"/n\"", ""),
        (
            "workers = 2\n[[ingress]]\ntun = \"a\"\ndomain = 1\n[[ingress]]\nunix = \"/u\"\ndomain = 1",
            "a TUN device can share its `domain` only with `workers` = 1",
        ),
    ] {
        let checked = validate::check(&parse(text).unwrap()).err().unwrap_or_default();
        assert!(checked.starts_with(message) && checked.is_empty() == message.is_empty(), "{text}: {checked}");
    }
}

#[test]
fn each_ingress_has_the_common_settings_unless_it_has_its_own() {
    let settings = parse(
        "tun = \"a\"\nunix = [\"/b\"]\nmtu = 1400\nsource = [\"10.0.0.0/8\"]\ngateway = [\"192.0.2.1\"]\n\
         [[ingress]]\ntun = \"c\"\nmtu = 1300\nsource = []\ngateway = [\"192.0.2.2\"]\n[[ingress]]\nunix = \"/d\"",
    );
    let seen = |ingress: Ingress| {
        let device = ingress.tun.unwrap_or_else(|| ingress.unix.unwrap().to_str().unwrap().to_owned());
        let gateway = ingress.gateway.unwrap().v4.unwrap().octets()[3];
        (device, ingress.mtu.unwrap().get(), ingress.source.unwrap().len(), gateway)
    };
    let ingresses: Vec<_> = settings.unwrap().ingresses().into_iter().map(seen).collect();
    let expected = [("a", 1400, 1, 1), ("/b", 1400, 1, 1), ("c", 1300, 0, 2), ("/d", 1400, 1, 1)];
    assert_eq!(ingresses, expected.map(|(device, mtu, sources, gateway)| (device.to_owned(), mtu, sources, gateway)));
}

#[test]
fn ingresses_share_a_domain_only_if_both_name_it() {
    let settings = parse(
        "tun = \"a\"\n[[ingress]]\ntun = \"b\"\ndomain = 7\n[[ingress]]\ntun = \"c\"\ndomain = \"blue\"\n\
         [[ingress]]\ntun = \"d\"\ndomain = 7\n[[ingress]]\ntun = \"e\"\n[[ingress]]\ntun = \"f\"\ndomain = \"blue\"",
    );
    let ingresses = settings.unwrap().ingresses();
    let domains: Vec<Option<u32>> = super::build::domains(&ingresses).map(|domain| Some(domain?.0)).collect();
    assert_eq!(domains, [0, 1, 2, 1, 4, 2].map(Some));
}

#[test]
fn the_printed_configuration_is_the_same_configuration() {
    let example = example();
    let lines = lines_in_force(&example);
    // `pid` excludes `netns`.
    let whole: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with("pid")).collect();
    // Each line of the example alone, for which tables need their device.
    let (top, table) = lines.split_at(lines.iter().position(|line| line.starts_with("[[")).unwrap());
    let alone = top.iter().map(ToString::to_string);
    let in_table =
        table.iter().filter_map(|line| key(line).filter(|key| !["tun", "unix"].contains(key)).map(|_| *line));
    let in_table = in_table.map(|line| format!("[[ingress]]\ntun = \"x\"\n{line}\n[[ingress]]\nunix = \"/x\""));
    let others =
        ["", "unix = [\"/tmp/a b\\\"c\", '/d\\e']", "policy = ['deny 10.0.0.0/8 from 10.1.0.0/16', 'allow ::1']"];
    let files = alone.chain(in_table).chain([whole.join("\n")]).chain(others.map(str::to_owned));
    for file in files {
        let settings = parse(&file).unwrap_or_else(|error| panic!("{error}\n{file}"));
        let printed = settings.to_toml().unwrap();
        let again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(again, settings, "{printed}");
    }
}

#[test]
fn the_example_has_every_key_and_the_defaults() {
    let example = example();
    let lines = lines_in_force(&example);
    let (top, table) = lines.split_at(lines.iter().position(|line| line.starts_with("[[")).unwrap());
    let found =
        |lines: &[&str]| -> BTreeSet<String> { lines.iter().filter_map(|line| key(line)).map(str::to_owned).collect() };
    let mut expected = keys("x = 1");
    assert!(expected.remove("ingress"));
    assert_eq!(found(top), expected);
    assert_eq!(found(table), keys("[[ingress]]\nx = 1"));
    assert_eq!(parse(&example).unwrap(), Settings::default());
}

/// Keys without a value are comments of the printed configuration: each is a valid line, and none is left out.
#[test]
fn the_printed_configuration_has_every_key() {
    let mut keys = keys("x = 1");
    keys.remove("ingress");
    for settings in [Settings::default(), parse("[[ingress]]\ntun = \"x\"\n").unwrap()] {
        let printed = settings.to_toml().unwrap();
        let top = printed.split("[[").next().unwrap();
        let found: BTreeSet<String> = top.lines().filter_map(key).map(str::to_owned).collect();
        assert_eq!(found, keys, "{printed}");
        assert_eq!(parse(&printed).unwrap(), settings);
    }
    for (key, example) in super::model::UNSET {
        parse(&format!("{key} = {example}")).unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

#[test]
fn prefixes_with_host_bits_are_named_once() {
    let text = "tun = 'x'\npolicy = ['allow 10.0.0.1/8 from 10.1.0.1/16', 'deny 10.0.0.1/8', 'deny 10.0.0.1']\n\
                route = ['default', 'fd00::1/8']\naddress = ['192.0.2.1/24']\n\
                [[ingress]]\nunix = '/u'\nsource = ['172.16.0.1/12']\npolicy = ['deny 192.168.0.1/16']";
    let expected = [
        "10.0.0.1/8 has host bits, and means 10.0.0.0/8",
        "10.1.0.1/16 has host bits, and means 10.1.0.0/16",
        "172.16.0.1/12 has host bits, and means 172.16.0.0/12",
        "192.168.0.1/16 has host bits, and means 192.168.0.0/16",
        "fd00::1/8 has host bits, and means fd00::/8",
    ];
    assert_eq!(validate::warnings(&parse(text).unwrap()), expected);
}

#[test]
fn the_help_states_the_defaults() {
    use clap::CommandFactory;

    let defaults = toml::Table::try_from(Settings::default()).unwrap();
    let mut command = crate::cli::Cli::command();
    command.build();
    let mut compared = 0;
    for option in command.find_subcommand("run").unwrap().get_arguments() {
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let stated = help.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
        if let (Some(stated), Some(default)) = (stated, defaults.get(option.get_id().as_str())) {
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            let duration = |text: &str| humantime::parse_duration(text).ok();
            assert!(stated == default || duration(stated) == duration(&default), "{}: {default}", option.get_id());
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared}");
}
