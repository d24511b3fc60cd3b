//! Stamps the binary with what `/version` and `build_info` tell.
#![expect(clippy::disallowed_methods, reason = "a build script is told by the environment")]
use std::{env, process::Command};

fn main() {
    // An image build has no `.git`; its revision comes as a build argument.
    let revision = env::var("GIT_REVISION").ok().filter(|given| !given.is_empty());
    let revision = revision.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]));
    let rustc = output(&env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()), &["--version"]);
    // The image build says it in GIT_TIME: where SOURCE_DATE_EPOCH changes, C dependencies are compiled again.
    let mut given = ["SOURCE_DATE_EPOCH", "GIT_TIME"].iter().filter_map(|name| env::var(name).ok());
    let built_at = given.find(|given| !given.is_empty()).or_else(|| output("date", &["+%s"]));
    for (name, value) in [("BUILD_REVISION", revision), ("BUILD_RUSTC", rustc), ("BUILD_TIME", built_at)] {
        println!("cargo::rustc-env={name}={}", value.unwrap_or_default());
    }
    for name in ["GIT_REVISION", "GIT_TIME", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=migrations");
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
