"""Training of the test model from nothing: ``python -m earlytom.testbed.train --output DIR``.

Two stages, the encoder on single frames and then the language model on growing clips; the state is saved every two
minutes, and ``--resume`` goes on from there. Data, order and initial weights follow from fixed seeds; how many steps
fit into the minutes depends on the machine.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor, SiglipVisionModel

from earlytom.testbed.checkpoint import (
    CHECKPOINT_FOLDER,
    build_model,
    build_processor,
    build_vision_config,
    load_checkpoint,
    save_checkpoint,
)
from earlytom.testbed.starting import start_from
from earlytom.testbed.training_encoder import train_encoder
from earlytom.testbed.training_language import FROM_CHECKPOINT, FROM_NOTHING, train_language

CURVE_FILE = CHECKPOINT_FOLDER.parent / "training_curve.json"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.output.mkdir(parents=True, exist_ok=True)
    train(options, device)


def train(options: argparse.Namespace, device: torch.device) -> None:
    """Run both stages and write the checkpoint and the training curve."""
    torch.manual_seed(0)
    tower = SiglipVisionModel(build_vision_config()).to(device)
    if options.start:
        tower.load_state_dict(load_checkpoint(options.start)[0].model.vision_tower.state_dict())
    curve = train_encoder(
        tower, options.output, options.encoder_minutes, options.resume, device, fresh=options.start is None
    )
    processor = build_processor()
    model = build_model(processor.tokenizer).to(device)
    if options.start:
        start_from(model, processor.tokenizer, options.start)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    folders = [options.output / "checkpoint", *([CHECKPOINT_FOLDER] if options.install else [])]

    def export() -> None:
        _export(model, processor, folders)

    language_minutes = options.minutes - options.encoder_minutes
    course = FROM_CHECKPOINT if options.start else FROM_NOTHING
    curve = curve + train_language(
        model, processor.tokenizer, options.output, language_minutes, options.resume, device, export, course
    )
    _write_curve(options.output / CURVE_FILE.name, curve)
    if options.install:
        _write_curve(CURVE_FILE, curve)


def _export(
    model: LlavaOnevisionForConditionalGeneration, processor: LlavaOnevisionProcessor, folders: list[Path]
) -> None:
    """Save the model as it stands into every folder."""
    for folder in folders:
        save_checkpoint(model, processor, folder)


def _write_curve(path: Path, curve: list[dict[str, Any]]) -> None:
    """Write the training curve as JSON, atomically."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="python -m earlytom.testbed.train", description="Train the test model.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the saved state and the checkpoint")
    parser.add_argument("--minutes", type=float, default=102.0, help="training time of both stages together")
    parser.add_argument("--encoder-minutes", type=float, default=13.0, help="part of it for the encoder")
    parser.add_argument("--start", type=Path, help="folder of a trained checkpoint to start from instead of nothing")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    parser.add_argument("--install", action="store_true", help="also replace the checkpoint inside this package")
    return parser


if __name__ == "__main__":
    main()
