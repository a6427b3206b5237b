"""Flags made from the configuration: a command takes `given` and shows a flag per parameter.

`Command` shows them in `--help` under the sections of the configuration.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from ostinato.cli import defaults
from ostinato.cli.config import ONLY, OPTIONS, Option

OPTIONAL = ("--language",)


class Command(TyperCommand):
    """A command whose help has a heading for each section of the configuration.

    A flag of `OPTIONAL` may stand without a value, which then is `ONLY`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `ONLY` behind each optional flag that stands without a value."""
        full: list[str] = []
        for i, word in enumerate(args):
            full.append(word)
            if word in OPTIONAL and (i + 1 == len(args) or args[i + 1].startswith("-")):
                full.append(ONLY)
        return super().parse_args(ctx, full)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags under the headings of their sections, those of the configuration last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                argument = parameter.param_type_name == "argument"
                heading = getattr(parameter, "rich_help_panel", None)
                heading = heading or ("Arguments" if argument else "Options")
                groups.setdefault(heading, []).append(record)
        for heading in sorted(groups, key=lambda h: h.startswith("[")):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])


def with_flags(*wanted: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Replace a command's parameter `given` by one flag for each option in `wanted`.

    Args:
        wanted: sections ("model") or keys ("training.batch_size") of the configuration.

    The command gets the flags that were really given as a checked dict "section.key" → value.
    """
    options = [o for o in OPTIONS.values() if o.section in wanted or o.key in wanted]
    options = [o for o in options if o.key != "data.source"]  # a positional argument

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(**arguments: Any) -> Any:
            raw = [(o, arguments.pop(o.name)) for o in options]
            given = {o.key: o.check(v, o.flag) for o, v in raw if v is not None}
            return command(given=given, **arguments)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [p for p in own if p.name != "given"] + list(_parameters(options))
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


def completion(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    """What a shell offers for a word that has been begun."""
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
    default = f"'{default}'" if default == "." else default  # a sentence ends with one, too
    return f"{o.help} Default: {default}."
