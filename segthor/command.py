"""`segthor COMMAND`: one command for all programs; `segthor build` is `python -m beam_jobs.build`.

Starts programs by name and imports none of them.
"""

import difflib
import importlib.metadata
import runpy
import sys
import textwrap

# Command to module, in the order in which a project needs them.
COMMANDS = {
    "phantom": "segthor.phantom",
    "build": "beam_jobs.build",
    "list": "beam_jobs.build",
    "verify": "beam_jobs.verify",
    "inspect": "beam_jobs.inspect",
    "train": "trainer.main",
    "preview": "trainer.preview",
    "diagnose": "trainer.doctor",
    "cross_validate": "trainer.cross_validate",
    "learning_curve": "trainer.learning_curve",
    "suspects": "serving.suspects",
    "export": "serving.export",
    "calibrate": "serving.calibrate",
    "tune": "serving.tune",
    "predict": "serving.predict",
    "node": "serving.node",
    "convert": "serving.convert",
    "evaluate": "serving.evaluate",
    "report": "serving.report",
    "submission": "serving.submission",
    "follow": "serving.follow",
    "doctor": "segthor.doctor",
}
_MORE = {"list": ["--list"]}  # command to flags that it adds
# The questions of README's table, which a test compares.
QUESTIONS = (
    ("What is in this DICOM export, and would it be used?", "beam_jobs.build --list"),
    ("How do I use other organs than these four?", "beam_jobs.build --organ_table"),
    (
        "How do I start from an earlier network, or train for ten minutes?",
        "trainer.main --start_from, --minutes",
    ),
    ("What helps with only a few patients?", "trainer.main --start_from=demo/model"),
    ("Why is the GPU idle?", "trainer.doctor"),
    ("How much would more patients help?", "trainer.learning_curve"),
    ("Which training contours look wrong?", "serving.suspects"),
    (
        "Which predictions must a person look at?",
        "serving.calibrate, then predictions.csv of serving.predict",
    ),
    (
        "How do studies come from the PACS, and structure sets go back, by themselves?",
        "serving.node",
    ),
    ("How do I predict faster without a GPU?", "serving.predict --engine=openvino"),
    (
        "How do I get structure sets and SEG for other systems?",
        "serving.predict --formats, serving.convert",
    ),
    ("Which drafts were changed before approval, and does the model drift?", "serving.follow"),
)
_COMPLETION = """\
_segthor() {
  local word=${COMP_WORDS[COMP_CWORD]} flag='s/^  --\\(\\[no\\]\\)\\{0,1\\}\\([a-z_0-9]*\\)'
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
  elif [ "${word#-}" != "$word" ]; then
    COMPREPLY=($(compgen -W "$(segthor "${COMP_WORDS[1]}" --help 2> /dev/null |
      sed -n "$flag=.*/--\\2=/p; $flag\\$/--\\2/p")" -- "$word"))
    case ${COMPREPLY[0]-} in *=) compopt -o nospace 2> /dev/null ;; esac
  fi
}
complete -o default -F _segthor segthor
"""
_SHELLS = {
    "bash": "",
    "zsh": "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n",
}


def main() -> int | None:
    """Runs the command in `sys.argv`, as `python -m` runs its module."""
    command, *arguments = sys.argv[1:] or ["--help"]
    name, _, value = command.partition("=")
    if command in ("--help", "-h", "help"):
        print(_help())
    elif command == "--version":
        print(f"segthor {importlib.metadata.version('segthor')}")
    elif name == "--completion" and value in _SHELLS:
        print(_SHELLS[value] + _COMPLETION.replace("@COMMANDS@", " ".join(COMMANDS)), end="")
    elif command in COMMANDS:
        sys.argv[1:] = [*_MORE.get(command, ()), *arguments]
        runpy.run_module(COMMANDS[command], run_name="__main__", alter_sys=True)
    else:
        print(f"error: {_unknown(command)}", file=sys.stderr)
        return 2


def in_commands(text: str) -> str:
    """Replaces the modules of programs in a text by their commands."""
    for command, module in COMMANDS.items():
        if command not in _MORE:
            text = text.replace(module, f"segthor {command}")
    return text


def _help() -> str:
    """The questions with their commands, all commands, and other options."""
    answers = (f"{question}\n    {in_commands(program)}" for question, program in QUESTIONS)
    every = textwrap.fill(", ".join(COMMANDS), 92, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(
        [
            "segthor COMMAND [--flag=value ...]",
            "",
            *answers,
            "",
            "Commands:",
            every,
            "",
            "segthor COMMAND --help explains a command and its flags.",
            "segthor doctor says what is installed, what is missing, and what this machine has.",
            "segthor --completion=bash (or zsh) prints completion for the shell:",
            '  eval "$(segthor --completion=bash)"',
        ]
    )


def _unknown(command: str) -> str:
    """The message for an unknown command, with a similar one."""
    near = difflib.get_close_matches(command, COMMANDS, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"segthor: unknown command {command!r}; expected one of {', '.join(COMMANDS)}{meant}"
