use super::*;

/// The file that is installed as an example.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/pingferry.toml");

fn parsed(args: &[&str]) -> Configuration {
    let args = ["pingferry", "run"].iter().chain(args).map(OsString::from).collect();
    match parse(args) {
        Ok((_, configuration)) => configuration,
        Err(Refused::Usage(error)) => panic!("{error}"),
        Err(Refused::Told(failure)) => panic!("{failure}"),
    }
}

fn refusal(text: &str) -> String {
    File::parse("x.toml".as_ref(), text).map(|_| String::new()).unwrap_err()
}

#[test]
fn a_mistake_is_told_by_line_and_key() {
    for (text, told) in [
        (
            "tun = \"ping0\"\n\nidle_timout = \"5s\"",
            "unknown key `idle_timout` at line 3; did you mean `idle_timeout`?",
        ),
        ("gateways = []", "unknown key `gateways` at line 1; did you mean `gateway`?"),
        ("policies = []", "unknown key `policies` at line 1; did you mean `policy`?"),
        ("colour = \"red\"", "unknown key `colour` at line 1"),
        ("[proxy]\nworkers = 2", "unknown key `proxy` at line 1"),
        ("config = \"x\"", "unknown key `config` at line 1"),
        ("allow = [\"::1\"]", "unknown key `allow` at line 1; rules stand in `policy = [\"allow DEST\"]`"),
        ("\nidle_timeout = \"soon\"", "`idle_timeout` at line 2: `soon` is not valid: expected number at 0"),
        ("idle_timeout = 60", "`idle_timeout` at line 1: expected a string, found integer"),
        ("workers = \"2\"", "`workers` at line 1: expected a whole number, found string"),
        ("workers = 0", "`workers` at line 1: `0` is not valid: 0 is not in 1..=256"),
        ("max_flows = -1", "`max_flows` at line 1: `-1` is not valid: -1 is not in 1..=4294967295"),
        ("sockets = \"many\"", "`sockets` at line 1: `many` is not one of shared, per-flow"),
        ("log_level = \"loud\"", "`log_level` at line 1: `loud` is not one of error, warn, info, debug, trace"),
        ("gateway = \"192.0.2.1\"", "`gateway` at line 1: expected a list of strings, found string"),
        ("gateway = [1]", "`gateway` at line 1: expected a string, found integer"),
        ("gateway = [\"here\"]", "`gateway` at line 1: `here` is not valid: invalid IP address syntax"),
        ("unix = [\"/a,b\"]", "`unix` at line 1: `/a,b` must not contain `,`"),
        ("no_sandbox = \"yes\"", "`no_sandbox` at line 1: expected true or false, found string"),
        ("policy = \"allow ::1\"", "`policy` at line 1: expected a list of rules, found string"),
        (
            "policy = [\n  \"allow ::1\",\n  \"permit ::2\",\n]",
            "`policy` at line 1: `permit ::2` at line 3: expected `allow DEST`, `deny DEST`, or either with `from SOURCE`",
        ),
        ("workers = 1\nworkers = 2", "line 2: duplicate key"),
        ("workers =\n", "line 1: string values must be quoted, expected literal string"),
    ] {
        assert_eq!(refusal(text), told, "{text}");
    }
}

#[test]
fn a_flag_outranks_the_environment_the_file_and_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pingferry.toml");
    std::fs::write(&path, "workers = 2\nno_sandbox = true\ngateway = [\"192.0.2.1\", \"fd00::1\"]\ntun = \"a\"")
        .unwrap();
    let path = path.to_str().unwrap();
    for (args, lines) in [
        (&[][..], ["workers = 1", "no_sandbox = false", "gateway = []", "idle_timeout = \"60s\""]),
        (
            &["--config", path],
            ["workers = 2", "no_sandbox = true", "gateway = [\"192.0.2.1\", \"fd00::1\"]", "tun = \"a\""],
        ),
        (
            &["--config", path, "--workers", "3", "--gateway", "192.0.2.2", "--tun", "b"],
            ["workers = 3", "no_sandbox = true", "gateway = [\"192.0.2.2\"]", "tun = \"b\""],
        ),
    ] {
        let toml = parsed(args).to_toml(&Policy::default());
        for line in lines {
            assert!(toml.lines().any(|it| it == line), "{args:?}: no {line} in\n{toml}");
        }
    }
}

#[test]
fn what_is_set_otherwise_is_told_by_key() {
    let file = |text| File::parse("x.toml".as_ref(), text).unwrap();
    let before = file("workers = 2\ntun = \"a\"\npolicy = []");
    let after = file("workers = 3\nidle_timeout = \"5s\"\ntun = \"a\"\npolicy = [\"allow ::1\"]");
    assert_eq!(before.differences(&after), ["idle_timeout", "workers"]);
    assert_eq!(before.differences(&before), [""; 0]);
}

#[test]
fn the_example_has_every_key_and_says_the_defaults() {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    let key = |line: &str| -> Option<String> {
        let (key, _) = line.trim_start_matches('#').split_once(" = ")?;
        key.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()).then(|| key.to_owned())
    };
    let mut told: Vec<String> = text.lines().filter_map(key).collect();
    let mut keys: Vec<String> = settings().iter().map(|option| option.get_id().to_string()).collect();
    keys.push(POLICY.into());
    told.sort_unstable();
    keys.sort_unstable();
    assert_eq!(told, keys, "the keys of packaging/pingferry.toml");

    let toml = |args: &[&str]| parsed(args).to_toml(&Policy::default());
    assert_eq!(toml(&["--config", EXAMPLE]), toml(&[]));
    let all: String = text
        .lines()
        .filter(|line| key(line).is_some())
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    File::parse(EXAMPLE.as_ref(), &all).unwrap();
}
