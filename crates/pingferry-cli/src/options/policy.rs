//! `--allow` and `--deny`: rules, in the order in which they were given.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use pingferry::{ParseRuleError, Policy, Rule};

use crate::config::File;

/// The rules of the command line, those of the environment behind them.
#[derive(Clone, Debug)]
pub(crate) struct PolicyArgs(Vec<Rule>);

impl PolicyArgs {
    /// The whole policy. As a flag outranks the environment and that the file, their rules stand in this order.
    pub(crate) fn policy(&self, file: Option<&File>) -> Policy {
        let of_file = file.into_iter().flat_map(|file| &file.rules);
        Policy { rules: self.0.iter().chain(of_file).copied().collect() }
    }
}

const ALLOW: &str = "Allow these destinations, to these sources only if given; repeatable. The first rule that matches \
                     decides. Loopback, unspecified, multicast and broadcast addresses, refused by default, are opened by \
                     a prefix within them";
const DENY: &str = "Deny these destinations, to these sources only if given; repeatable, in order with --allow";

// By hand: derived fields would be two lists, whose common order is lost. `deny` comes first so that it does among
// variables of the environment, which have no order.
impl Args for PolicyArgs {
    fn augment_args(command: Command) -> Command {
        command
            .arg(rules("deny").env("PINGFERRY_DENY").help(DENY))
            .arg(rules("allow").env("PINGFERRY_ALLOW").help(ALLOW))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PolicyArgs {
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
        let command = PolicyArgs::augment_args(Command::new("test").no_binary_name(true));
        let args = PolicyArgs::from_arg_matches(&command.try_get_matches_from(args)?)?;
        Ok(args.policy(None).rules.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_stay_in_the_order_they_were_given_in() {
        let args = ["--allow", "10.1.2.3,10.1.2.4", "--deny", "10.1.0.0/16 from 192.168.0.0/16", "--allow=10.0.0.0/8"];
        let rules =
            ["allow 10.1.2.3/32", "allow 10.1.2.4/32", "deny 10.1.0.0/16 from 192.168.0.0/16", "allow 10.0.0.0/8"];
        assert_eq!(parsed(&args).unwrap(), rules);
        assert_eq!(parsed(&["--deny", "10.0.0.0/8", "--allow", "::1"]).unwrap(), ["deny 10.0.0.0/8", "allow ::1/128"]);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (rule, error) in [
            ("192.0.2.0/33", "`192.0.2.0/33` is not a prefix such as 192.0.2.0/24 or 2001:db8::/32"),
            ("10.0.0.0/8 from fd00::/8", "destination and source are of different families: it never matches"),
        ] {
            let said = parsed(&["--deny", rule]).unwrap_err().to_string();
            assert!(said.contains(error), "{said}");
        }
    }
}
