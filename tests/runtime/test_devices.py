"""Models spread over devices, as far as CPU pieces show it: accelerate's hooks, and devices that only have a name."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import earlytom
from conftest import batch, cache_name, clip, tiny_model
from earlytom.models.caches import returned_cache
from earlytom.runtime.devices import computing_devices, input_device, synchronize
from earlytom.trace import Stopwatch
from families import FAMILY_NAMES, family_case

QUARTER = "earlytom:retention=0.25"
TORCH = Path(torch.__file__).parent


def test_devices_are_where_parts_run_not_where_weights_wait() -> None:
    model = tiny_model()
    assert computing_devices(model) == (torch.device("cpu"),)
    model.lm_head.to("meta")
    assert computing_devices(model) == (torch.device("cpu"),)
    model.model.vision_tower._hf_hook = SimpleNamespace(execution_device=1)
    model.model.language_model._hf_hook = SimpleNamespace(execution_device="cuda:0")
    devices = computing_devices(model)
    assert devices == (torch.device("cpu"), torch.device("cuda:1"), torch.device("cuda:0"))
    model._hf_hook = SimpleNamespace(execution_device=2)
    assert input_device(model) == torch.device("cuda:2")


@pytest.fixture
def clocked(monkeypatch):
    """CUDA devices that only have a name; what was asked of them."""
    asked: list[str] = []
    ticks = iter(range(1000))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append(f"wait {device}"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.place = 0

        def record(self, device: torch.device) -> None:
            self.place = next(ticks)
            asked.append(f"event {device}")

        def elapsed_time(self, other: Event) -> float:
            return float(other.place - self.place)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    return asked


def test_one_device_is_timed_by_events_that_wait_for_nothing(clocked) -> None:
    watch = Stopwatch(torch.device("cpu"), torch.device("cuda:1"))
    with watch.stage("encoder"):
        pass
    assert clocked == ["event cuda:1", "event cuda:1"]
    assert watch.milliseconds() == {"encoder": 1.0}
    assert clocked[2:] == ["wait cuda:1"]


def test_several_devices_are_all_waited_for(clocked) -> None:
    watch = Stopwatch(torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cuda:0"))
    with watch.stage("encoder"):
        assert clocked == ["wait cuda:0", "wait cuda:1"]
    assert clocked == ["wait cuda:0", "wait cuda:1"] * 2
    assert watch.milliseconds()["encoder"] >= 0


def test_synchronize_waits_for_every_device_of_a_model(clocked) -> None:
    model = tiny_model()
    synchronize(computing_devices(model))
    assert clocked == []
    model.model.vision_tower._hf_hook = SimpleNamespace(execution_device=1)
    model.lm_head._hf_hook = SimpleNamespace(execution_device=0)
    synchronize(computing_devices(model))
    assert clocked == ["wait cuda:1", "wait cuda:0"]


@pytest.mark.parametrize("method", [QUARTER, "earlytom:retention=0.5,inner_merging=true,inner_layer=3", "visionzip"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_model_that_accelerate_dispatched_keeps_its_hooks_and_its_answers(family, method) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    case = family_case(family)
    model, inputs = case.build(), case.batch([[case.clip(6, 0)]])
    with earlytom.compress(model, method):
        expected = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    # Every layer by itself, so that each has a hook that moves what enters it.
    visual = "visual.blocks" if hasattr(model.model, "visual") else "vision_tower"
    places = {name: "cpu" for name, _ in model.named_modules() if name.count(".") <= 1 and "." in name}
    places |= {"lm_head": "cpu"} | {name: "cpu" for name, _ in model.named_parameters() if name.count(".") <= 1}
    hooked = accelerate.dispatch_model(model, places, main_device="cpu", force_hooks=True)
    assert any(hasattr(part, "_hf_hook") for name, part in hooked.named_modules() if visual.split(".")[0] in name)
    before = {name: set(vars(part)) for name, part in hooked.named_modules()}
    with earlytom.compress(hooked, method):
        assert torch.equal(hooked.generate(**inputs, do_sample=False, max_new_tokens=4), expected)
    assert {name: set(vars(part)) for name, part in hooked.named_modules()} == before


class OurWaits(TorchDispatchMode):
    """Counts where code of ours would wait for a device: a value is read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            outside = [frame for frame in traceback.extract_stack()[:-1] if TORCH not in Path(frame.filename).parents]
            if Path(earlytom.__file__).parent in Path(outside[-1].filename).parents:
                self.places.append(f"{outside[-1].filename}:{outside[-1].lineno}")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_step_by_hand_waits_for_no_device(family, unequal, masked) -> None:
    case = family_case(family)
    model = case.build()
    inputs = case.batch([[case.clip(6, 0)], [case.clip(6, 1), case.clip(6, 2)]] if unequal else [[case.clip(6, 0)]])
    with torch.no_grad(), earlytom.compress(model, QUARTER):
        output, mask = model(**inputs, use_cache=True), inputs["attention_mask"]
        for _ in range(3):
            token = output.logits[:, -1:].argmax(dim=-1).clamp_max(200)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            given = {cache_name(): returned_cache(output)} | ({"attention_mask": mask} if masked else {})
            with OurWaits() as waits:
                output = model(input_ids=token, use_cache=True, **given)
            assert waits.places == []


def test_scores_may_lie_elsewhere_than_features(monkeypatch) -> None:
    """A selection gets everything on the device of the features."""
    from earlytom.methods.base import Method
    from earlytom.models.llava_onevision import LlavaOnevisionTower
    from earlytom.types import Decision, EncoderPlan

    seen: list[set[torch.device]] = []

    class Looking(Method):
        name = "looking"
        stages = ("tokens",)

        def encoder_plan(self, encoder):
            return EncoderPlan(attention_layer=encoder.last_global_layer, keys=True)

        def select_tokens(self, tokens, budget):
            seen.append({part.device for part in (tokens.features, tokens.attention, tokens.keys)})
            return Decision()

    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    original = LlavaOnevisionTower.project
    # The projector on another device: "meta" has a name and shapes, which is what is looked at.
    monkeypatch.setattr(LlavaOnevisionTower, "project", lambda tower, encoded: original(tower, encoded).to("meta"))
    with pytest.raises(Exception), earlytom.compress(model, Looking(retention=1.0)):  # noqa: B017
        model.generate(**inputs, max_new_tokens=1)
    assert seen == [{torch.device("meta")}]
