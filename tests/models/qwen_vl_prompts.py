"""Models and prompts of both Qwen-VL families, and what is kept of a prompt by plain loops."""

from __future__ import annotations

import functools
import importlib

import torch

import earlytom
from earlytom.methods import make_method
from earlytom.models import open_model
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.trace import Stopwatch
from families import family_case
from reference import qwen_vl as slow

FAMILIES = ["qwen2_5_vl", "qwen3_vl"]
QUARTER = "earlytom:retention=0.25,merge_layers=1/3/5"
INNER = f"{QUARTER},inner_merging=true,inner_layer=3"


@functools.cache
def shared_model(family: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return importlib.import_module(f"families.{family}").build(attention, dtype)


def batch(family: str, samples) -> dict[str, torch.Tensor]:
    inputs = family_case(family).batch(samples)
    if "second_per_grid_ts" in inputs:  # whole seconds: releases of transformers differ in the others
        inputs["second_per_grid_ts"] = inputs["second_per_grid_ts"].ceil()
    return inputs


def generate(model, inputs, method, **options):
    options = {"do_sample": False, "max_new_tokens": 6} | options
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, **options), trace


def assembled(model, inputs, method):
    """The shortened prompt, its kept tokens and the trace of its clips."""
    host, method = open_model(model), make_method(method)
    call = host.open(inputs)
    with torch.no_grad():
        kept, traces = encode_videos(call, method, Plans.of(method, host).encoder, Stopwatch(torch.device("cpu")))
        return call.assemble(kept), kept, traces


def runs_of(family: str, inputs, clips: list[int]):
    """Frames, rows, columns and step of each run of placeholders of some clips."""
    for number in clips:
        frames, rows, columns = inputs["video_grid_thw"][number].tolist()
        if family == "qwen3_vl":
            yield from [(1, rows // 2, columns // 2, 0)] * frames
        else:
            yield frames, rows // 2, columns // 2, int(inputs["second_per_grid_ts"][number]) * 2


def slow_prompt(family, inputs, number, clips, kept, images=()):
    """Ids and positions [3, S'] of one sample's shortened prompt, and the whole prompt's positions."""
    ids = inputs["input_ids"][number][inputs["attention_mask"][number].bool()].tolist()
    shapes = [inputs["video_grid_thw"][clip].tolist() for clip in clips]
    whole = slow.positions(ids, runs_of(family, inputs, clips), iter(images))
    counts = [(frames, rows * columns // 4) for frames, rows, columns in shapes]
    places = [sorted(kept[clip].places.tolist()) for clip in clips]
    stay = slow.kept_of_prompt(ids, counts, places, timestamps=family == "qwen3_vl")
    return [ids[place] for place in stay], whole[:, stay], whole
