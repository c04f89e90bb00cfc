"""The look of every command: its help, its usage errors, `--version`, and the exit code that it returns.

This is the only place that configures rich-click. It knows nothing of what the commands do.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import rich_click as click
from rich.table import Table
from rich.text import Text

#: What fits on any terminal.
COLUMNS = 100

#: How a command ends: it is done, it met trouble, or its options or the configuration can't be used.
DONE, TROUBLE, WRONG_USAGE = 0, 1, 2

EXIT_CODES: Mapping[int, str] = {
    DONE: "done",
    TROUBLE: "trouble; the message on standard error says what happened and what to do",
    WRONG_USAGE: "wrong usage or configuration; nothing was done",
}

CONTEXT: Mapping[str, Any] = {
    "help_option_names": ["--help", "-h"],
    "rich_help_config": click.RichHelpConfiguration(
        theme="default-slim",
        # Every machine shows the same help, whatever its environment contains.
        enable_theme_env_var=False,
        max_width=COLUMNS,
        # Without a box, a command in a message can be copied.
        style_errors_panel_box="BLANK",
        options_table_column_types=["opt_short", "opt_long_metavar", "help"],
        options_table_help_sections=["help", "default", "required"],
    ),
}

_with_version = click.version_option(package_name="holdfast", prog_name="holdfast", message="%(prog)s %(version)s")


class Command(click.RichCommand):
    """A command whose function returns its exit code, and whose help ends with examples and exit codes."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        exit_codes: Mapping[int, str] = MappingProxyType({}),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{"context_settings": dict(CONTEXT), **kwargs})
        self.examples = examples
        self.exit_codes = {**EXIT_CODES, **exit_codes}
        _with_version(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _require_text(args, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> NoReturn:
        ctx.exit(super().invoke(ctx) or DONE)

    def format_epilog(self, ctx: click.RichContext, formatter: click.RichHelpFormatter) -> None:  # type: ignore[override]
        codes = Table.grid(padding=(0, 2))
        for code, meaning in self.exit_codes.items():
            codes.add_row(f"  {code}", meaning)
        formatter.write(_title("Examples", formatter))
        for example in self.examples:
            # A long line is not broken, so that it can be copied.
            formatter.write(Text(f"  {example}", style=formatter.config.style_command), soft_wrap=True)
        formatter.write("", _title("Exit codes", formatter), codes, sep="\n")


def _require_text(args: Sequence[str], ctx: click.Context) -> None:
    """Refuse an argument with bytes that are no UTF-8: neither PostgreSQL nor JSON has them."""
    for one in args:
        try:
            one.encode()
        except UnicodeEncodeError as error:
            written = repr(one.encode(errors="surrogateescape"))[1:]
            raise click.UsageError(f"The argument {written} is not text in UTF-8.", ctx) from error


def _title(title: str, formatter: click.RichHelpFormatter) -> Text:
    return Text(f"{title}:", style=formatter.config.style_options_panel_title_style)


class Group(Command, click.RichGroup):  # type: ignore[misc]  # rich-click's own classes contradict click's
    """A command with subcommands. Without any argument it shows its help on standard error."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the file, not of the alphabet

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(WRONG_USAGE)
        return super().parse_args(ctx, args)


def run(command: Command) -> NoReturn:
    """Run a command with the arguments of this process, and exit with its exit code."""
    command.main(prog_name=command.name)
