"""``earlytom models``: which model families can be compressed."""

from __future__ import annotations

from earlytom.cli.display import cell, output, print_json, table
from earlytom.cli.options import JsonOption
from earlytom.models import FAMILIES, family_names
from earlytom.shipped import shipped_folders

__all__ = ["models"]


def models(as_json: JsonOption = False) -> None:
    """List the model families that can be compressed, and where the shipped test models lie."""
    families = [
        {"model_type": name, "classes": list(FAMILIES[name].classes) if name in FAMILIES else None}
        for name in family_names()
    ]
    shipped = [
        {"model_type": name, "path": str(folder), "present": (folder / "config.json").is_file()}
        for name, folder in shipped_folders().items()
    ]
    if as_json:
        print_json({"families": families, "shipped": shipped})
        return
    made = table(["model type", "transformers class"], title="Model families")
    for family in families:
        classes = family["classes"]
        named = ", ".join(classes) if isinstance(classes, list) else "from another package"
        made.add_row(cell(family["model_type"], "bold"), cell(named))
    console = output()
    console.print(made)
    for model in shipped:
        missing = "" if model["present"] else " (missing)"
        console.print(f"Shipped test model, {model['model_type']}: {model['path']}{missing}", soft_wrap=True)
    console.print("--model takes a local folder or a hub id, such as llava-hf/llava-onevision-qwen2-7b-ov-hf.")
