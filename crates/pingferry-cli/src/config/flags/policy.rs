//! `--allow` and `--deny`: rules, in the order in which they were given.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use pingferry::{ParseRuleError, Rule};

use super::super::model::Settings;
use super::super::values::Text;

/// The rules of the command line, followed by those of the environment.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFlags(Vec<Rule>);

impl PolicyFlags {
    /// Puts the rules before those of the file, which they override.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        let rules = self.0.iter().copied().map(Text);
        settings.policy.splice(..0, rules);
    }
}

const ALLOW: &str = "Allow these destinations, to all sources or to those given; repeatable. The first rule that \
                     matches decides. Loopback, unspecified, multicast and broadcast addresses are refused by default; \
                     a prefix within them allows them";
const DENY: &str = "Deny these destinations, to all sources or to those given; repeatable, in order with --allow";

// By hand: derived fields would be two lists and lose their common order. `deny` comes first because environment
// variables have no order, and denials are to be matched first there.
impl Args for PolicyFlags {
    fn augment_args(command: Command) -> Command {
        command
            .arg(rules("deny").env("PINGFERRY_DENY").help(DENY))
            .arg(rules("allow").env("PINGFERRY_ALLOW").help(ALLOW))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PolicyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id| {
            let rules = matches.get_many::<Rule>(id).into_iter().flatten();
            matches.indices_of(id).into_iter().flatten().zip(rules)
        };
        let mut rules: Vec<(usize, &Rule)> = given("allow").chain(given("deny")).collect();
        rules.sort_by_key(|(index, _)| *index);
        Ok(Self(rules.into_iter().map(|(_, rule)| *rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Self::from_arg_matches(matches).map(|args| *self = args)
    }
}

fn rules(action: &'static str) -> Arg {
    let parse = move |text: &str| -> Result<Rule, ParseRuleError> { format!("{action} {text}").parse() };
    Arg::new(action)
        .long(action)
        .value_name("DEST[ from SOURCE]")
        .value_delimiter(',')
        .value_parser(parse)
        .action(ArgAction::Append)
        .help_heading("Policy")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Vec<String>, clap::Error> {
        let command = PolicyFlags::augment_args(Command::new("test").no_binary_name(true));
        let flags = PolicyFlags::from_arg_matches(&command.try_get_matches_from(args)?)?;
        Ok(flags.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_keep_the_order_of_the_command_line() {
        let args = ["--allow", "10.1.2.3,10.1.2.4", "--deny", "10.1.0.0/16 from 192.168.0.0/16", "--allow=10.0.0.0/8"];
        let rules =
            ["allow 10.1.2.3/32", "allow 10.1.2.4/32", "deny 10.1.0.0/16 from 192.168.0.0/16", "allow 10.0.0.0/8"];
        assert_eq!(parsed(&args).unwrap(), rules);
        assert_eq!(parsed(&["--deny", "10.0.0.0/8", "--allow", "::1"]).unwrap(), ["deny 10.0.0.0/8", "allow ::1/128"]);
    }

    #[test]
    fn a_wrong_rule_is_an_error() {
        for (rule, error) in [
            ("192.0.2.0/33", "`192.0.2.0/33` is not a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
            ("10.0.0.0/8 from fd00::/8", "destination and source are of different families: it never matches"),
        ] {
            let message = parsed(&["--deny", rule]).unwrap_err().to_string();
            assert!(message.contains(error), "{message}");
        }
    }
}
