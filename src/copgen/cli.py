"""`copgen ...`: the list of commands, and how an error ends. What they do is in commands/; nothing heavy is imported for --help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from copgen.commands import archive, data, evaluate, figures, generate, latents, models, train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]},
                  help="Any layers of a place in, many physically plausible Copernicus samples of any others out.\n\n"
                       "Start with `copgen generate --help`; `copgen modalities` lists what can be given and wanted.")

COMMANDS: dict[str, Callable[..., None]] = {
    "modalities": models.modalities, "models": models.models, "generate": generate.generate, "convert": models.convert,
    "download": archive.download, "verify": archive.verify, "split": archive.split, "synthesize": data.synthesize, "encode": data.encode,
    "train-vae": train.train_vae, "codec-report": train.codec_report, "train": train.train,
    "figures": figures.figures, "loop": figures.loop,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(latents.app, name="latents")
app.add_typer(evaluate.app, name="evaluate")


def main() -> None:
    """The console script: a wrong request is one sentence on standard error and exit status 2."""
    import warnings

    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        app()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:                     # a path too long, a folder that may not be read
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}; check the path and its permissions", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print("error: the GPU's memory is too small for this batch; lower it with --max-memory, or use --device cpu", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def version(show: bool) -> None:
    if show:
        from copgen import __version__

        print(f"copgen {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
