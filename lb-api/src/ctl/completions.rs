//! What shells complete: the command line's words, and the names of what there is.

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::arguments::{Arguments, Kind};

/// Asks for the names of a kind behind `get`, `describe`, `edit` and `delete`, and for those of neighbours. A daemon that
/// does not answer has none. Bash expands what it completes, so names with other characters, as interfaces may have, are left out.
const BASH: &str = r#"
_lbctl_with_names() {
    _lbctl "$@"
    local word=${COMP_WORDS[COMP_CWORD]} kind=
    case "$COMP_CWORD ${COMP_WORDS[*]:1:COMP_CWORD-1}" in
        "3 get "* | "3 describe "* | "3 edit "* | "3 delete "*) kind=${COMP_WORDS[2]} ;;
        "4 show bgp neighbors" | "3 clear bgp") kind=peers ;;
        "3 bgp shutdown" | "3 bgp start" | "3 bgp drain" | "3 bgp undrain") kind=peers ;;
    esac
    [[ -n $kind && $word != -* && $kind != -* ]] || return 0
    local names=$(lbctl get "$kind" -o name 2>/dev/null | sed -n 's,^[^/]*/\([A-Za-z0-9._:@/-]*\)$,\1,p')
    COMPREPLY=($(compgen -W "$names" -- "$word"))
}
complete -F _lbctl_with_names -o bashdefault lbctl
"#;
const FISH: &str = r#"
function __fish_lbctl_names
    set -l words (commandline -opc)
    set -l kind
    switch "$words[2..]"
        case get describe edit delete
            string split ' ' 'KINDS'
        case 'get *' 'describe *' 'edit *' 'delete *'
            test (count $words) -eq 3; and set kind $words[3]
        case 'show bgp neighbors' 'clear bgp' 'bgp shutdown' 'bgp start' 'bgp drain' 'bgp undrain'
            set kind peers
    end
    test -n "$kind"; and lbctl get $kind -o name 2>/dev/null | string replace -r '^[^/]*/' ''
end
complete -c lbctl -f -a '(__fish_lbctl_names)'
"#;
const ZSH: &str = r#"_lbctl_names() {
    local kind=$words[2]
    [[ $words[1] = (bgp|neighbors|shutdown|start|drain|undrain) ]] && kind=peers
    local -a names=(${(f)"$(lbctl get $kind -o name 2>/dev/null | sed 's,^[^/]*/,,')"})
    compadd -a names
}

"#;

/// The script of a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "lbctl", &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    match shell {
        Shell::Bash => text + BASH,
        Shell::Fish => text + &FISH.replace("KINDS", &kinds()),
        Shell::Zsh => zsh(&text),
        Shell::Elvish | Shell::PowerShell | _ => text,
    }
}

/// clap has fish complete no values of what stands by its place.
fn kinds() -> String {
    let all = Kind::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    all.map(|kind| kind.get_name().to_owned()).collect::<Vec<_>>().join(" ")
}

/// Names stand where the command line has them: behind a kind, and of neighbours.
fn zsh(text: &str) -> String {
    let mut is_behind_kind = false;
    let lines = text.lines().map(|line| {
        let is_name = line.starts_with("'::name --") && is_behind_kind;
        let is_peer = line.contains("name -- Its name or address:")
            || line.contains("The neighbour'\\''s name or address:");
        let is_kind = line.starts_with("':kind --") || line.starts_with("'::kind --");
        // The kinds stand below, a line each.
        is_behind_kind = is_kind || is_behind_kind && !line.starts_with('\'');
        match is_name || is_peer {
            true => line.replace(":_default'", ":_lbctl_names'"),
            false => line.to_owned(),
        }
    });
    let text: String = lines.flat_map(|line| [line, "\n".into()]).collect();
    text.replacen("if [ \"$funcstack[1]\"", &format!("{ZSH}if [ \"$funcstack[1]\""), 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    /// What a real bash offers for the last of these words, where a daemon has two pools and a neighbour.
    fn offered(words: &[&str]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(script(Shell::Bash).as_bytes()).unwrap();
        let asked = r#"
            lbctl() { case "$*" in
                "get pool -o name") echo pool/public; echo pool/private ;;
                "get peers -o name") echo peer/upstream ;;
                "get interfaces -o name") echo 'interface/$(echo eth1)'; echo interface/eth0.5 ;;
            esac; }
            source "$1"; shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _lbctl_with_names lbctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            echo "${COMPREPLY[@]}"
        "#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", asked, "bash"]).arg(file.path()).args(words);
        String::from_utf8(bash.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn names_are_completed_behind_their_kind_and_words_elsewhere() {
        for (words, expected) in [
            (&["lbctl", "describe", "pool", ""][..], "public private"),
            (&["lbctl", "delete", "pool", "pub"], "public"),
            (&["lbctl", "show", "bgp", "neighbors", ""], "upstream"),
            (&["lbctl", "clear", "bgp", "u"], "upstream"),
            (&["lbctl", "bgp", "shutdown", ""], "upstream"),
            (&["lbctl", "get", "vi"], "vips"),
            (&["lbctl", "get", "pool", "--wat"], "--watch"),
            (&["lbctl", "describe", "nothing", ""], ""),
            (&["lbctl", "describe", "interfaces", ""], "eth0.5"),
        ] {
            assert_eq!(offered(words), expected, "{words:?}");
        }
    }

    #[test]
    fn the_other_shells_ask_for_names_too() {
        let zsh = script(Shell::Zsh);
        // Of get, describe, edit and delete, and of the six commands about a neighbour; and where they are asked for.
        assert_eq!(zsh.matches(":_lbctl_names'").count(), 10);
        assert_eq!(zsh.matches("_lbctl_names() {").count(), 1);
        let fish = script(Shell::Fish);
        assert!(fish.contains("(__fish_lbctl_names)") && fish.contains("'vips backends pools"));
    }
}
