use super::*;
use clap::error::ErrorKind;

fn read(line: &[&str]) -> Result<Cli, clap::Error> {
    let line = std::iter::once("sr").chain(line.iter().copied()).map(OsString::from).collect();
    let matches = Cli::command().try_get_matches_from(single_dashes(line))?;
    Cli::from_arg_matches(&matches)
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_client_command_has_help_with_examples() {
    fn check(command: &mut clap::Command, path: &str) {
        let help = command.render_long_help().to_string();
        if command.has_subcommands() {
            let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
            for name in names.iter().filter(|name| *name != "help") {
                check(command.find_subcommand_mut(name).unwrap(), &format!("{path} {name}"));
            }
        } else if path != " version" {
            assert!(help.contains("Example"), "{path}");
        }
    }
    let mut command = Cli::command();
    command.build();
    check(&mut command, "");
}

#[test]
fn accepts_what_users_write() {
    for line in [
        &["ls"][..],
        &["ls", "-lhR", "/a", "/b"],
        &["ls", "--", "-odd name"],
        &["--context", "/c", "find", "/", "-name", "-x*", "-size", "-5M", "-type", "f,d"],
        &["find", "-newer", "2026-11-20"],
        &["put", "-r", "--resume", "--class", "c", "--jobs", "4", "a", "b", "/d"],
        &["chmod", "-x", "/a"],
        &["chmod", "-R", "u+x,go-w", "/a"],
        &["chmod", "-R", "-w", "/a"],
        &["cat", "--offset", "1M", "--length", "4K", "/a"],
        &["rm", "-rf", "/a"],
        &["class", "set", "--inherit", "/a"],
        &["class", "set", "archive", "/a"],
        &["xattr", "set", "/a", "user.x", "-1"],
        &["df", "-h"],
        &["du", "-sh", "/"],
        &["checksum", "--check", "list"],
        &["version"],
        &["completion", "zsh"],
    ] {
        assert!(read(line).is_ok(), "{line:?}: {}", read(line).unwrap_err());
    }
}

#[test]
fn refuses_what_makes_no_sense() {
    for line in [
        &[][..],
        &["frobnicate"],
        &["put", "a"],
        &["get", "/a"],
        &["put", "--jobs", "0", "a", "/"],
        &["cat"],
        &["rm"],
        &["find", "-size", "big"],
        &["find", "-type", "z"],
        &["cat", "--offset", "-1", "/a"],
        &["ls", "-l", "--json"],
        &["class", "create", "c", "--copies", "0"],
        &["checksum"],
    ] {
        let error = read(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
}

#[test]
fn h_means_human_where_sizes_are_shown() {
    assert!(read(&["ls", "-h", "/"]).is_ok());
    assert_eq!(read(&["ls", "--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
    assert_eq!(read(&["put", "-h"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
}
