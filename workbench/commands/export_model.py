"""`workbench export model`: a version of the weights as a folder that other programs open."""

from __future__ import annotations

from pathlib import Path

import click

from storage import versions
from storage.errors import UsageError
from workbench.commands.options import json_option, print_json, reading, say, workspace_option
from workbench.text import safe_text


@click.command("export model")
@click.argument("version", metavar="VERSION")
@click.argument("folder", metavar="DIR")
@click.option("--as", "kind", type=click.Choice(["adapter", "merged", "gguf"]), default="adapter", show_default=True,
              help="A LoRA adapter beside its base model, one model of its own, or GGUF files of both.")  # fmt: skip
@click.option("--model", metavar="MODEL", help="The base model, where it is not found by itself.")
@json_option
@workspace_option
def export_model(version: str, folder: str, kind: str, model: str | None, as_json: bool, workspace: str | None) -> None:
    """Write VERSION to the folder DIR, for peft, transformers, llama.cpp and what reads their files.

    An adapter names its base model, by its folder here or its name on the hub: peft's AutoPeftModelForCausalLM opens
    both. Another machine needs that base model as well; a merged model stands alone, rounded to the base's format.
    GGUF files are an adapter, VERSION-lora.gguf, and, where the base model came as such a file, the whole model,
    VERSION.gguf: the changed weights in 16 bits, all others as they were. README.md in the folder says what the
    version was trained from, and what its gate found.

    \b
    Examples:
      workbench export model v3 ./v3
      workbench export model v3 ./v3-whole --as merged
      workbench export model v3 ./v3-gguf --as gguf
    """
    with reading(workspace) as (place, database):
        chosen, target = versions.get(database, version), Path(folder).expanduser().absolute()
        from trainer import handing_over

        try:
            base = handing_over.hand_over(
                place, database, chosen, target, kind, model, lambda text, _: say(safe_text(text))
            )
        except OSError as error:
            raise UsageError(
                f"{version} cannot be written to {target}: {error.strerror or error}", "choose another folder"
            ) from error
    if as_json:
        print_json({"version": version, "folder": str(target), "as": kind, "base": base.reference})
    say(f"wrote {version} to {safe_text(str(target))}; its base model is {safe_text(base.reference)}")
