//! The services of a run: they last as long as its command, whatever program that becomes.
use std::process::Command;

/// A process that becomes another program over and over, asked for whether it is alive; then ended, and asked again.
const ASK: &str = r#"
eval "$(sed -n '/^alive() {/,/^}/p' scripts/services)"
again='exec sh -c "$0" "$0"'
sh -c "$again" "$again" & pid=$!
for ((i = 0; i < 2000; i++)); do alive "$pid" || { echo "dead at $i"; break; }; done
kill -KILL "$pid"
for ((; i < 10000; i++)); do alive "$pid" || exit 0; done
echo "alive for ever"
"#;

#[test]
fn a_command_that_becomes_another_program_is_alive() {
    let asked = Command::new("bash").args(["-c", ASK]).output().expect("there is a bash");
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "", "{asked:?}");
}
