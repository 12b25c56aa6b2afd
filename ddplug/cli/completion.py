"""``ddplug completion SHELL``: a script by which a shell completes commands, methods, options and names."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from importlib import import_module

from ddplug.cli.commands import COMMANDS, Answer
from ddplug.utils.arguments import Parser, known_name

__all__ = ["SHELLS", "configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the shell."""
    parser.epilog = (
        'bash: put eval "$(ddplug completion bash)" into ~/.bashrc\n'
        'zsh: put eval "$(ddplug completion zsh)" into ~/.zshrc\n'
        "fish: ddplug completion fish > ~/.config/fish/completions/ddplug.fish"
    )
    parser.add_argument("shell", type=known_name("shell", list(SHELLS)), metavar="{" + ",".join(SHELLS) + "}")
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Print the script."""
    script = SHELLS[arguments.shell](_options(), _values())
    return Answer({"shell": arguments.shell, "script": script}, script)


def _options() -> dict[str, list[str]]:
    """Return the options of every command; those of ``distill`` by ``"distill METHOD"``."""
    from ddplug import registry
    from ddplug.cli.distill import AUTO

    found = {}
    for name, (home, _) in COMMANDS.items():
        methods = [AUTO, *registry.names("distiller")] if name == "distill" else [""]
        for method in methods:
            parser = Parser(prog=f"ddplug {name}")
            import_module(home).configure(parser, [method] if method else ["--json"])
            long = (word for word in parser._option_string_actions if word.startswith("--"))
            found[f"{name} {method}".strip()] = sorted({*long, "--json"})
    return found


def _values() -> dict[str, list[str]]:
    """Return what options can be followed by, as far as names are known."""
    from ddplug import registry
    from ddplug.cli.described import sources
    from ddplug.cli.export import KINDS

    return {
        "--data": [*registry.names("dataset"), *(f"{usage.partition(':')[0]}:" for usage in sources())],
        "--codec": ["auto", *registry.names("codec")],
        "--network": ["auto", *registry.names("network")],
        "--to": list(KINDS),
        "--device": ["auto", "cpu", "cuda", "mps"],
    }


def _methods(options: Mapping[str, list[str]]) -> list[str]:
    return [name.partition(" ")[2] for name in options if name.startswith("distill ")]


def _bash(options: Mapping[str, list[str]], values: Mapping[str, list[str]]) -> str:
    """Write the script of bash; names hold letters, digits and dashes alone."""
    after = "\n".join(f"    {name}) words={shlex.quote(' '.join(known))} ;;" for name, known in values.items())
    commands = "\n".join(
        f"      {name.replace(' ', ':')}{'' if ' ' in name else ':*'}) words={shlex.quote(' '.join(known))} ;;"
        for name, known in options.items()
    )
    return f"""_ddplug() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  case "$prev" in
{after}
    *) if [ "$COMP_CWORD" -eq 1 ]; then words={shlex.quote(" ".join(COMMANDS))}
    elif [ "$COMP_CWORD" -eq 2 ] && [ "$prev" = distill ]; then words={shlex.quote(" ".join(_methods(options)))}
    elif [ "${{cur#-}}" != "$cur" ]; then case "${{COMP_WORDS[1]}}:${{COMP_WORDS[2]}}" in
{commands}
      esac
    fi ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _ddplug ddplug"""


def _zsh(options: Mapping[str, list[str]], values: Mapping[str, list[str]]) -> str:
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{_bash(options, values)}"


def _fish(options: Mapping[str, list[str]], values: Mapping[str, list[str]]) -> str:
    lines = [
        f"complete -c ddplug -n __fish_use_subcommand -f -a {name} -d {shlex.quote(about)}"
        for name, (_, about) in COMMANDS.items()
    ]
    methods = shlex.quote(" ".join(_methods(options)))
    lines.append(f"complete -c ddplug -n '__fish_seen_subcommand_from distill' -a {methods}")
    for name, known in options.items():
        command, _, method = name.partition(" ")
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in (command, method) if word)
        for option in known:
            more = f" -x -a {shlex.quote(' '.join(values[option]))}" if option in values else ""
            lines.append(f"complete -c ddplug -n '{seen}' -l {option.removeprefix('--')}{more}")
    return "\n".join(lines)


SHELLS: Mapping[str, Callable[[Mapping[str, list[str]], Mapping[str, list[str]]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""Name of a shell -> what writes its script, of the options of commands and the names that follow options."""
