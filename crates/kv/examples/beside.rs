//! Runs a command beside an engine that is there for it alone, and ends the engine with it.
//!
//!     cargo run -p kv --features conformance --example beside -- local|etcd|postgres COMMAND...
//!
//! The command finds in `SR_TEST_STORE` where stores can be made: `{}` stands for the name of one. Ends as the command does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails ends the run")]

use kv::conformance::{etcd, postgres};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, program, rest @ ..] = arguments.as_slice() else {
        panic!("which engine, and which command?");
    };
    let run = |place: String| {
        let status = Command::new(program).args(rest).env("SR_TEST_STORE", place).status();
        status.expect("the command can be run").success()
    };
    let is_done = match engine.as_str() {
        // It is in each process of the command.
        "local" => run("local".to_owned()),
        "etcd" => {
            let more =
                ["--max-txn-ops=16384", "--max-request-bytes=33554432", "--quota-backend-bytes=8589934592"];
            let cluster = etcd::Cluster::with(1, &more);
            run(format!("{}/{{}}", cluster.place()))
        }
        "postgres" => {
            let server = postgres::Server::with(&["max_connections=500"]);
            let place = server.place();
            run(format!("{}{{}}", place.trim_end_matches(char::is_numeric)))
        }
        other => panic!("{other} is no engine: local, etcd or postgres"),
    };
    if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
