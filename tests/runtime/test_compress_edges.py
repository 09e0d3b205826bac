"""compress() and prepare() at their edges: odd clips, bad calls, errors inside, and what they must not depend on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from families import FAMILY_NAMES, family_case

FULL = earlytom.EarlyTom(retention=1.0, frame_merging=False)
QUARTER = earlytom.EarlyTom(retention=0.25)


def two_samples():
    return batch([[clip(12, 0)], [clip(12, 1)]])


def generate(model, inputs, method, **options):
    with earlytom.compress(model, method) as trace:
        return model.generate(**inputs, **({"do_sample": False, "max_new_tokens": 6} | options)), trace


class Snapshot:
    """What a model is and computes, to compare with later."""

    def __init__(self, model, inputs) -> None:
        self._model, self._inputs = model, inputs
        self._before = self._take()

    def _take(self):
        with torch.no_grad():
            logits = self._model(**self._inputs).logits
        hooks = [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in self._model.modules()]
        return logits, hooks, set(self._model.__dict__), type(self._model).forward

    def assert_unchanged(self) -> None:
        logits, *rest = self._take()
        before, *rest_before = self._before
        assert torch.equal(logits, before)
        assert rest == rest_before
        assert not {"generate", "forward"} & set(self._model.__dict__)


def test_one_frame_steps_aside(model) -> None:
    inputs = batch([[clip(1, 0)]])
    stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    ours, trace = generate(model, inputs, QUARTER, max_new_tokens=4)
    assert torch.equal(stock, ours)
    assert "one frame" in trace.videos[0].stepped_aside
    assert trace.videos[0].tokens == 16


def test_black_static_and_nan_clips_do_not_crash(model) -> None:
    for pixels in (
        torch.zeros(12, 3, 32, 32),
        clip(1, 0).expand(12, -1, -1, -1),
        torch.full((12, 3, 32, 32), torch.nan),
    ):
        _, trace = generate(model, batch([[pixels.clone()]]), QUARTER)
        assert trace.videos[0].tokens == 48


@dataclass
class Case:
    change: dict[str, object]
    message: str


@pytest.mark.parametrize(
    "case",
    [
        Case({"pixel_values_videos": None}, "pixel_values_videos is missing"),
        Case({"input_ids": None}, "without input_ids"),
        Case({"pixel_values_videos": torch.zeros(1, 12, 3, 32, 32)}, "placeholder"),
        Case({"pixel_values_videos": torch.zeros(12, 3, 32, 32)}, r"\[videos, frames, channels"),
        Case({"pixel_values_videos": torch.zeros(2, 12, 3, 64, 64)}, "32 x 32"),
        Case({"inputs_embeds": torch.zeros(1)}, "inputs_embeds"),
        Case({"vision_feature_layer": -2}, "vision_feature_layer"),
        Case({"assistant_model": object()}, "assisted decoding"),
        Case({"prompt_lookup_num_tokens": 3}, "prompt lookup"),
        Case({"prefill_chunk_size": 8}, "chunked prefill"),
    ],
    ids=lambda case: case.message,
)
def test_bad_calls_are_refused_and_leave_the_model_intact(model, case) -> None:
    inputs = two_samples()
    snapshot = Snapshot(model, inputs)
    with earlytom.compress(model, QUARTER), pytest.raises(earlytom.CompressionError, match=case.message):
        model.generate(**(inputs | case.change), max_new_tokens=2)
    snapshot.assert_unchanged()


def test_an_exception_inside_leaves_the_model_intact(model) -> None:
    inputs = two_samples()
    snapshot = Snapshot(model, inputs)
    with pytest.raises(KeyError), earlytom.compress(model, QUARTER):
        raise KeyError("the user's own")
    snapshot.assert_unchanged()

    class Broken(earlytom.EarlyTom):
        def select_tokens(self, tokens, budget):
            raise RuntimeError("method broke")

    with earlytom.compress(model, Broken(retention=0.25)), pytest.raises(RuntimeError, match="method broke"):
        model.generate(**inputs, max_new_tokens=2)
    snapshot.assert_unchanged()


def test_a_method_that_misses_its_budget_is_an_error(model) -> None:
    class Greedy(earlytom.EarlyTom):
        def budget(self, grid):
            return super().budget(grid) + 1

        def select_tokens(self, tokens, budget):
            return super().select_tokens(tokens, budget - 1)

    with (
        earlytom.compress(model, Greedy(retention=0.25)),
        pytest.raises(earlytom.CompressionError, match="promised 49"),
    ):
        model.generate(**two_samples(), max_new_tokens=2)


def test_nested_use_is_refused_and_the_outer_block_goes_on(model) -> None:
    inputs = two_samples()
    with earlytom.compress(model, QUARTER) as trace:
        with pytest.raises(earlytom.ModelError, match="already inside"), earlytom.compress(model, "none"):
            pass
        model.generate(**inputs, max_new_tokens=2)
    assert len(trace.calls) == 1
    assert trace.videos[0].tokens == 48
    with earlytom.compress(model, "none") as again:
        model.generate(**inputs, max_new_tokens=2)
    assert again.videos[0].tokens == 192


def test_a_forward_that_others_put_on_the_instance_is_put_back(model) -> None:
    stock = model.forward

    def theirs(*args: object, **kwargs: object) -> object:
        return stock(*args, **kwargs)

    model.forward = theirs
    try:
        with earlytom.compress(model, QUARTER):
            model.generate(**two_samples(), max_new_tokens=2)
        assert model.__dict__["forward"] is theirs
    finally:
        del model.forward


def test_repeated_runs_give_the_same_bits(model) -> None:
    inputs = two_samples()
    first = earlytom.prepare(model, inputs, QUARTER).arguments["inputs_embeds"]
    second = earlytom.prepare(model, inputs, QUARTER).arguments["inputs_embeds"]
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_the_budget(dtype) -> None:
    model, inputs = tiny_model("sdpa", dtype), two_samples()
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(dtype)
    output, trace = generate(model, inputs, earlytom.EarlyTom(retention=0.25, inner_merging=True))
    assert output.shape[1] == inputs["input_ids"].shape[1] + 6
    assert [video.tokens for video in trace.videos] == [48, 48]


def test_several_feature_layers_are_merged_alike() -> None:
    model = tiny_model()
    model.config.vision_feature_layer = [-3, -1]
    width = model.config.vision_config.hidden_size
    projector = model.model.multi_modal_projector
    projector.linear_1 = torch.nn.Linear(2 * width, projector.linear_1.out_features)
    inputs = batch([[clip(12, 0)]])
    stock = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert torch.equal(generate(model, inputs, FULL, max_new_tokens=4)[0], stock)
    _, trace = generate(model, inputs, QUARTER)
    assert trace.videos[0].tokens == 48


def test_trace_to_dict_is_json(model) -> None:
    import json

    _, trace = generate(model, two_samples(), earlytom.EarlyTom(retention=0.25, inner_merging=True))
    data = json.loads(json.dumps(trace.to_dict()))
    assert data["videos"][0]["tokens"] == 48
    assert data["videos"][0]["merges"][0]["segments"]
    assert data["language"][0]["tokens_after"] == [24, 24]
    assert {"encoder", "projection", "selection", "assembly"} <= data["milliseconds"].keys()


def test_an_empty_trace_says_so(model) -> None:
    with (
        earlytom.compress(model, QUARTER) as trace,
        pytest.raises(LookupError, match="no call of the model has succeeded"),
    ):
        _ = trace.last


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    inputs = two_samples()
    on_cpu = earlytom.prepare(tiny_model(), inputs, QUARTER).arguments["inputs_embeds"]
    moved = {key: value.cuda() for key, value in inputs.items()}
    on_gpu = earlytom.prepare(tiny_model().cuda(), moved, QUARTER).arguments["inputs_embeds"].cpu()
    torch.testing.assert_close(on_cpu, on_gpu, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_nothing_dropped_is_bit_identical_under_autocast(family) -> None:
    case = family_case(family)
    model, inputs = case.build(), case.batch([[case.clip(6, 0)]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        stock = model(**inputs).logits
        with earlytom.compress(model, "none"):
            assert torch.equal(model(**inputs).logits, stock)


@pytest.mark.parametrize("method", ["earlytom:retention=0.25", "visionzip", "tome", "holitom", "prunevid", "fastv",
                                    "fastvid:scores=received", "earlytom:inner_merging=true", "random"])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_of_the_process_plays_no_part(method, dtype) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    _, expected = generate(model, inputs, method)
    torch.set_default_dtype(dtype)
    try:
        _, trace = generate(model, inputs, method)
    finally:
        torch.set_default_dtype(torch.float32)
    assert trace.videos[0].kept_tokens() == expected.videos[0].kept_tokens()


def test_the_default_device_of_the_process_plays_no_part() -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with torch.no_grad(), earlytom.compress(model, QUARTER) as expected:
        logits = model(**inputs).logits
    torch.set_default_device("meta")
    try:
        with torch.no_grad(), earlytom.compress(model, QUARTER) as trace:
            found = model(**inputs).logits
    finally:
        torch.set_default_device(None)
    assert torch.equal(found, logits)
    assert trace.videos[0].kept_tokens() == expected.videos[0].kept_tokens()


def test_prepare_says_too_that_it_will_be_cached(model) -> None:
    with pytest.warns(UserWarning, match="use_cache=False has no effect") as caught:
        earlytom.prepare(model, two_samples() | {"use_cache": False}, QUARTER)
    with pytest.warns(UserWarning, match="use_cache=False has no effect") as inside:
        generate(model, two_samples(), QUARTER, use_cache=False)
    assert {warning.filename for warning in (*caught, *inside)} == {__file__}
