"""Flags made from the configuration: a command takes `given` and shows a flag per parameter.

`Command` shows them in `--help` under the sections of the configuration. Commands that train have
some eighty flags: their `--help` shows the most important ones, and `--help-all` all of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from ostinato_learn.jobs.failures import all_missing
from ostinato_learn.jobs.inputs import defaults
from ostinato_learn.jobs.inputs.built_in import BUILT_IN
from ostinato_learn.jobs.inputs.config import ONLY, OPTIONS, Option

# What several commands take. `Optional[X]`, not `X | None`: Typer's last release for Python 3.10
# knows only the former.
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or a saved model.")]
TextRun = Annotated[Path, typer.Argument(metavar="RUN", help="A run of a language model.")]
ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--config", help="TOML file with [data], [task], [model], [training], [run]."),
]
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="One parameter; repeatable."),
]

OPTIONAL = ("--language",)
HELP_ALL = "--help-all"
# The configuration's flags in the shorter help, which also has those of the command itself.
FIRST_HOUR = {
    "--classify", "--tag", "--regress", "--forecast", "--horizon", "--language", "--id", "--time",
    "--features", "--shape", "--group", "--separator", "--decimal", "--thousands", "--encoding",
    "--time-format", "--na", "--sort", "--repeated", "--every", "--missing", "--epochs",
    "--bidirectional", "--minutes",
}  # fmt: skip
# Flags of the commands themselves that the shorter help leaves out.
LATER = {"--set", "--config", "--print-config", "--resume", "--overwrite", "--json", "--backend"}


class Command(TyperCommand):
    """A command whose help has a heading for each section of the configuration.

    A flag of `OPTIONAL` may be given without a value, which is then `ONLY`. With a `--help-all`,
    `--help` shows the most important flags.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `ONLY` after each optional flag without a value."""
        full: list[str] = []
        for i, word in enumerate(args):
            full.append(word)
            if word in OPTIONAL and (i + 1 == len(args) or args[i + 1].startswith("-")):
                full.append(ONLY)
        return super().parse_args(ctx, full)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the description of the command; only its first sentence in the shorter help."""
        if not self._is_short(ctx):
            super().format_help_text(ctx, formatter)
            return
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(inspect.cleandoc(self.help or "").partition("\n\n")[0])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags under the headings of their sections, those of the configuration last.

        The shorter help has one heading for them.
        """
        groups: dict[str, list[tuple[str, str]]] = {}
        short = self._is_short(ctx)
        for parameter in self.get_params(ctx):
            if short and not _is_of_first_hour(parameter):
                continue
            if record := parameter.get_help_record(ctx):
                argument = parameter.param_type_name == "argument"
                heading = None if short else getattr(parameter, "rich_help_panel", None)
                heading = heading or ("Arguments" if argument else "Options")
                groups.setdefault(heading, []).append(record)
        for heading in sorted(groups, key=lambda h: h.startswith("[")):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])

    def _is_short(self, ctx: Any) -> bool:
        return HELP_ALL not in ctx.meta and any(HELP_ALL in p.opts for p in self.params)


def _is_of_first_hour(parameter: Any) -> bool:
    names = set(parameter.opts)
    of_configuration = (getattr(parameter, "rich_help_panel", None) or "").startswith("[")
    return bool(names & FIRST_HOUR) if of_configuration else not names & LATER


def _show_all(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:  # as for the completion of a word in a shell
        context.meta[HELP_ALL] = True
        typer.echo(context.get_help())
        raise typer.Exit()


_HelpAll = Annotated[
    bool,
    typer.Option(HELP_ALL, callback=_show_all, is_eager=True, help="Show every flag and exit."),
]


def with_flags(*wanted: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace a command's parameter `given` by one flag for each option in `wanted`.

    Args:
        wanted: sections ("model") or keys ("training.batch_size") of the configuration.

    The command gets the given flags as a checked dict "section.key" → value. A command that trains
    has `--help-all`, too.
    """
    options = [o for o in OPTIONS.values() if o.section in wanted or o.key in wanted]
    options = [o for o in options if o.key != "data.source"]  # a positional argument

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            arguments.pop("help_all", None)
            raw = [(o, arguments.pop(o.name)) for o in options]
            given = {o.key: o.check(v, o.flag) for o, v in raw if v is not None}
            if "training" not in wanted:
                return command(given=given, **arguments)
            try:
                return command(given=given, **arguments)
            except ImportError as error:
                extra = "tune" if command.__name__ == "tune" else "torch"
                raise all_missing(error, extra) from error.__cause__

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [p for p in own if p.name != "given"] + list(_parameters(options))
        if "training" in wanted:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(
                inspect.Parameter("help_all", kind, default=False, annotation=_HelpAll)
            )
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del vars(run)["__wrapped__"]  # Typer would read the annotations of the wrapped function
        return run

    return decorate


def _parameters(options: Iterable[Option]) -> Iterable[inspect.Parameter]:
    for o in options:
        names = [f"{o.flag}/--no-{o.flag[2:]}"] if o.type is bool else [o.flag]
        info = typer.Option(
            *names,
            help=_help(o),
            metavar=None if o.type is bool else _metavar(o),
            show_default=False,
            rich_help_panel=f"[{o.section}]",
            autocompletion=completion(o.choices) if o.choices else None,
        )
        kind: Any = Optional[bool] if o.type is bool else Optional[str]  # noqa: UP045  typer of 3.10
        yield inspect.Parameter(
            o.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info]
        )


def source_argument(help: str) -> Any:
    """The data of a command that trains."""
    return typer.Argument(
        metavar="|".join((*BUILT_IN, "FILE")), help=help, autocompletion=completion(BUILT_IN)
    )


def completion(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """The completions of a word in a shell."""
    return lambda incomplete: [c for c in choices if c.startswith(incomplete)]


def _metavar(o: Option) -> str:
    if o.choices:
        return "|".join(o.choices)
    return {int: "N", float: "X", str: "TEXT"}[o.type]


def _help(o: Option) -> str:
    if o.key in defaults.HELP:
        return f"{o.help} {defaults.HELP[o.key]}"
    if o.default is None:
        return o.help
    default = str(o.default).lower() if o.type is bool else o.default
    default = f"'{default}'" if default == "." else default  # not to be read as a full stop
    return f"{o.help} Default: {default}."
