"""A batch of sessions: what it costs, who decides, and what it refuses."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from claimed_device import ClaimedDevice, claim
from earlytom import CompressionError, EarlyTom, Method, MethodError, Reduction, parse_method
from earlytom.ops import frame_similarity
from earlytom.similarity import FrameSimilarity
from earlytom.stages import ClipSession, FrameBatch, LayerRequests, SessionBatch
from earlytom.stages.host_copy import HostCopy
from earlytom.trace import Stopwatch
from earlytom.types import Decision, EncoderPlan, EncoderShape, FrameGrid

DEPTH, WIDTH, ROWS, COLUMNS = 8, 24, 3, 4
TOKENS = ROWS * COLUMNS
SHAPE = EncoderShape(depth=DEPTH)


def session(method: Method | str, frames: int) -> ClipSession:
    made = parse_method(method) if isinstance(method, str) else method
    return ClipSession(made, FrameGrid(frames=frames, rows=ROWS, columns=COLUMNS), SHAPE)


def scenes(frames: int, seed: int = 0) -> torch.Tensor:
    """[frames, TOKENS, WIDTH]: pairs of frames that are nearly alike."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.randn(-(-frames // 4), TOKENS, WIDTH, generator=generator)
    return still[torch.arange(frames) // 4] + 0.05 * torch.randn(frames, TOKENS, WIDTH, generator=generator)


def drive(sessions: SessionBatch, hidden: torch.Tensor, after=lambda layer, batch: batch) -> list:
    """An encoder whose layers compute nothing."""
    scores = torch.rand(hidden.shape[:2], generator=torch.Generator().manual_seed(9)).to(hidden.device)
    batch = FrameBatch(hidden=hidden, grids_per_clip=sessions.grids_per_clip)
    if sessions.requests.fingerprint:
        sessions.receive_pixels(hidden)
    for layer in range(DEPTH):
        left = batch.hidden.shape[0]
        if layer in sessions.requests.attention_layers:
            sessions.receive_attention(layer, lambda left=left: scores[:left])
        batch = after(layer, sessions.after_layer(layer, batch))
    return sessions.select(batch.hidden, lambda maps: maps)


def merge_layers() -> int:
    return len(EarlyTom().encoder_plan(SHAPE).merge_layers)


@pytest.mark.parametrize("frames", [[12], [12, 8], [12, 8, 16, 10]], ids=len)
def test_a_merge_layer_costs_one_wait_and_one_upload_for_all_clips(frames) -> None:
    with ClaimedDevice() as device, torch.no_grad():
        sessions = SessionBatch([session("earlytom:retention=0.25", count) for count in frames], Stopwatch())
        seen = []

        def after(layer, batch):
            seen.append((sum(device.waits.values()), device.uploads))
            return batch

        hidden = claim(torch.cat([scenes(count, seed) for seed, count in enumerate(frames)]))
        device.reset()
        drive(sessions, hidden, after)
    layers = EarlyTom().encoder_plan(SHAPE).merge_layers
    waits, uploads = ([seen[layer][kind] for layer in range(DEPTH)] for kind in (0, 1))
    assert all(clip.trace.merges[0].grids_after < clip.trace.merges[0].grids_before for clip in sessions.clips)
    merged = [sum(layer >= merging for merging in layers) for layer in range(DEPTH)]
    assert waits == merged
    assert layers[0] > 0
    assert all(count - uploads[0] <= so_far for count, so_far in zip(uploads, merged, strict=True))
    assert uploads[layers[0]] > uploads[0]
    # Behind the last layer the table for the selection is waited for, which was queued long before.
    assert sum(device.waits.values()) == len(layers) + 1


@pytest.mark.parametrize("frames", [[16], [12, 8]], ids=len)
def test_provenance_is_composed_while_the_host_waits_and_not_before_the_next_layer(frames, monkeypatch) -> None:
    happened: list[str] = []
    compose, read = Reduction.then, HostCopy.read
    monkeypatch.setattr(Reduction, "then", lambda *both: (happened.append("composed"), compose(*both))[1])
    monkeypatch.setattr(HostCopy, "read", lambda copy: (happened.append("waited"), read(copy))[1])
    sessions = SessionBatch([session("earlytom:retention=0.25", count) for count in frames], Stopwatch())

    def after(layer, batch):
        happened.append("launched")
        return batch

    drive(sessions, torch.cat([scenes(count, seed) for seed, count in enumerate(frames)]), after)
    merged = [number for number, what in enumerate(happened) if what == "composed"]
    assert merged
    for number in merged:
        before = next(what for what in reversed(happened[:number]) if what != "composed")
        behind = next(what for what in happened[number:] if what != "composed")
        assert (before, behind) == ("launched", "waited")


def test_a_trace_that_somebody_looks_at_is_up_to_date_between_layers() -> None:
    sessions = SessionBatch([session("earlytom:retention=0.25", 16)], Stopwatch())
    (clip,) = sessions.clips

    def after(layer, batch):
        assert clip.trace.origin.outputs == clip.grids_left == batch.hidden.shape[0]
        return batch

    drive(sessions, scenes(16), after)
    assert clip.grids_left < 16


def test_launches_do_not_grow_by_a_copy_for_each_clip() -> None:
    counts = {}
    for frames in ([12], [12, 8]):
        with ClaimedDevice() as device, torch.no_grad():
            sessions = SessionBatch([session("earlytom", count) for count in frames], Stopwatch())
            hidden = claim(torch.cat([scenes(count) for count in frames]))
            device.reset()
            drive(sessions, hidden)
            counts[len(frames)] = device.launches
    applied = [name for name in counts[1] if name.startswith(("index_copy", "segment_reduce"))]
    assert applied
    assert all(counts[2][name] == counts[1][name] for name in applied)


@dataclass(frozen=True, kw_only=True)
class Mute(EarlyTom):
    """Raises when asked: what decides must be elsewhere."""

    def merge_frames(self, states, layer, floor):
        raise LookupError("asked")

    def select_tokens(self, tokens, budget):
        raise LookupError("asked")


@pytest.mark.parametrize("method", ["earlytom:retention=0.25", "earlytom+random:retention=0.3"])
def test_one_process_decides_and_another_takes_over(method) -> None:
    sent: list[bytes] = []

    def first(make) -> Any:
        decision = make()
        sent.append(pickle.dumps(decision))
        return decision

    def second(make) -> Any:
        return pickle.loads(sent.pop(0))

    frames, hidden = [12, 8], torch.cat([scenes(12), scenes(8, 1)])
    deciding = SessionBatch([session(method, count) for count in frames], Stopwatch(), first)
    kept = drive(deciding, hidden)
    assert len(sent) == merge_layers() + len(frames)
    taking = SessionBatch([session(Mute(retention=parse_method(method).retention), count) for count in frames],
                          Stopwatch(), second)  # fmt: skip
    taken = drive(taking, hidden)
    assert not sent
    for one, other in zip(kept, taken, strict=True):
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.places, other.places)
    with pytest.raises(LookupError, match="asked"):
        drive(SessionBatch([session(Mute(), 12)], Stopwatch()), scenes(12))


def test_merged_tokens_are_decided_elsewhere_too() -> None:
    asked = []

    def decide(make) -> Any:
        asked.append(make)
        return make()

    sessions = SessionBatch([session("tome:retention=0.5", 4)], Stopwatch(), decide)
    batch = FrameBatch(hidden=scenes(4), grids_per_clip=(4,))
    sessions.merge_tokens(0, batch, batch.hidden)
    assert len(asked) == 1


def test_requests_are_those_of_all_clips() -> None:
    plans = [
        EncoderPlan(merge_layers=(1, 4), attention_layer=4, keys=True, frame_similarity=True),
        EncoderPlan(merge_layers=(2,), attention_layer=5),
        EncoderPlan(fingerprint=True, frame_similarity=True),
    ]
    found = LayerRequests.of(plans)
    assert found.merge_layers == {1, 2, 4}
    assert found.attention_layers == {4, 5}
    assert found.key_layers == {4}
    assert found.fingerprint
    assert found.barriers == [0, 1, 2, 4]
    assert not LayerRequests.of([EncoderPlan()]).barriers


@dataclass(frozen=True, kw_only=True)
class Comparing(Method):
    """Looks at similarities, of all grids or of those ``span`` apart, and keeps the first tokens."""

    name = "comparing"
    span: int | None = None

    def encoder_plan(self, encoder):
        return EncoderPlan(merge_layers=(1,), merge_similarity=True, frame_similarity=True, similarity_span=self.span)

    def merge_frames(self, states, layer, floor):
        return Decision(details={"similarity": states.similarity})

    def select_tokens(self, tokens, budget):
        kept = Reduction.keep(torch.arange(budget), tokens.features.shape[0] * TOKENS)
        return Decision(reduction=kept, details={"similarity": tokens.frame_similarity})


def test_a_method_gets_all_similarities_or_those_within_the_span_that_it_asks_for() -> None:
    frames, hidden = [200, 10, 200], torch.cat([scenes(200), scenes(10, 1), scenes(200, 2)])
    methods = [Comparing(retention=0.5), Comparing(retention=0.5, span=3), Comparing(retention=0.5, span=3)]
    sessions = SessionBatch([session(*pair) for pair in zip(methods, frames, strict=True)], Stopwatch())
    drive(sessions, hidden)
    for clip, features in zip(sessions.clips, hidden.split(frames), strict=True):
        whole = frame_similarity(features)
        for known in (clip.trace.merges[0].details["similarity"], clip.trace.details["similarity"]):
            if clip.method.span is None:
                assert torch.equal(known, whole)
            else:
                assert isinstance(known, FrameSimilarity)
                rows = known.rows()
                near = [(i, j) for i in range(len(features)) for j in range(i, min(len(features), i + 4))]
                assert max(abs(rows[i][j] - float(whole[i, j])) for i, j in near) < 3e-7


def test_each_clip_goes_by_the_attention_that_its_own_method_asked_for() -> None:
    class Scored(Method):
        name = "scored"

        def __init__(self, layer: int) -> None:
            super().__init__(retention=0.5)
            object.__setattr__(self, "layer", layer)

        def encoder_plan(self, encoder):
            return EncoderPlan(attention_layer=self.layer, keys=self.layer == 5)

        def select_tokens(self, tokens, budget):
            assert torch.all(tokens.attention == self.layer)
            assert (tokens.keys is None) == (self.layer != 5)
            return Decision(reduction=Reduction.keep(torch.arange(budget), tokens.attention.numel()))

    sessions = SessionBatch([session(Scored(2), 3), session(Scored(5), 4)], Stopwatch())
    for layer in (2, 5):
        sessions.receive_attention(layer, lambda layer=layer: torch.full((7, TOKENS), float(layer)))
    sessions.receive_keys(5, lambda: torch.rand(7, TOKENS, 2))
    kept = sessions.select(torch.rand(7, TOKENS, WIDTH), lambda maps: maps)
    assert [len(tokens.features) for tokens in kept] == [18, 24]


def test_a_decision_that_changes_rows_without_merging_any_is_applied_too() -> None:
    class Swapping(Method):
        name = "swapping"

        def encoder_plan(self, encoder):
            return EncoderPlan(merge_layers=(3,))

        def merge_frames(self, states, layer, floor):
            return Decision(reduction=Reduction.keep(torch.tensor([1, 0, 2]), 3))

    sessions, hidden = SessionBatch([session(Swapping(), 3)], Stopwatch()), scenes(3)
    kept = drive(sessions, hidden)
    assert torch.equal(kept[0].features, hidden[[1, 0, 2]].flatten(0, 1))


def test_what_was_asked_for_and_never_reported_is_noticed() -> None:
    hidden = scenes(8)
    for method, missing in (
        ("random:retention=0.3", "pixels"),
        ("earlytom", "layers"),
        ("earlytom:compat=paper", "attention, layers"),
        ("visionzip", "attention, keys"),
    ):
        sessions = SessionBatch([session(method, 8)], Stopwatch())
        with pytest.raises(CompressionError, match=f"without reporting {missing}, which the clips' methods asked for"):
            sessions.select(hidden, lambda maps: maps)


def test_a_layer_that_was_left_out_or_borders_that_moved_are_noticed() -> None:
    hidden = scenes(14)
    sessions = SessionBatch([session("earlytom", 8), session("earlytom", 6)], Stopwatch())
    with pytest.raises(CompressionError, match=r"the clips have \(8, 6\) temporal grids left, got a batch of \(7, 7\)"):
        sessions.after_layer(1, FrameBatch(hidden=hidden, grids_per_clip=(7, 7)))
    last = max(sessions.requests.barriers)
    sessions.receive_attention(last, lambda: torch.rand(14, TOKENS))
    sessions.after_layer(last, FrameBatch(hidden=hidden, grids_per_clip=(8, 6)))
    with pytest.raises(CompressionError, match="without reporting layers"):
        sessions.select(hidden, lambda maps: maps)


def test_scores_of_other_grids_are_refused() -> None:
    sessions = SessionBatch([session("visionzip", 8)], Stopwatch())
    (layer,) = sessions.requests.attention_layers
    for report, name in ((sessions.receive_attention, "attention"), (sessions.receive_keys, "keys")):
        with pytest.raises(
            CompressionError, match=rf"{name} of layer {layer} must have a row for each of the 8 .* \(7, 12\)"
        ):
            report(layer, lambda: torch.rand(7, TOKENS))


@pytest.mark.parametrize("garbage", [None, [], [None, None], "kept", ["kept"]], ids=repr)
def test_a_process_that_hands_over_no_decisions_is_refused(garbage) -> None:
    sessions = SessionBatch([session("earlytom", 8)], Stopwatch(), lambda make: garbage)
    with pytest.raises(CompressionError, match="got"):
        drive(sessions, scenes(8))


def test_a_batch_holds_grids_of_one_size() -> None:
    clips = [ClipSession(EarlyTom(), FrameGrid(frames=6, rows=rows, columns=4), SHAPE) for rows in (3, 2)]
    with pytest.raises(
        CompressionError, match="equally many tokens, got clips of 3 x 4 and 2 x 4; make a batch of each"
    ):
        SessionBatch(clips, Stopwatch())


def test_tokens_merge_inside_the_frames_of_all_clips_or_of_none() -> None:
    with pytest.raises(CompressionError, match=r"'tome:retention=0\.5' merges .* all clips .* got 'earlytom"):
        SessionBatch([session("tome:retention=0.5", 8), session("earlytom", 8)], Stopwatch())
    with pytest.raises(CompressionError, match=r"'tome:retention=0\.5' merges .* got 'tome:retention=0\.25'"):
        SessionBatch([session("tome:retention=0.5", 4), session("tome:retention=0.25", 4)], Stopwatch())
    with pytest.raises(CompressionError, match="cannot step aside for some"):
        SessionBatch([session("tome:visual_tokens=30", 4), session("tome:visual_tokens=30", 2)], Stopwatch())


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"\(2, 3\) temporal grids needs \[5, L, D\]"):
        FrameBatch(hidden=scenes(4), grids_per_clip=(2, 3))
    with pytest.raises(CompressionError, match=r"got \(5, 12, 24\) and \[4\] rows"):
        FrameBatch(hidden=scenes(5), grids_per_clip=(2, 3), others=(scenes(4),))
    with pytest.raises(CompressionError, match="no tokens have merged"):
        SessionBatch([session("earlytom", 4)], Stopwatch()).keep_unpooled(scenes(4), lambda maps: maps)
    unmerged = SessionBatch([session("tome:retention=0.5,unmerge=false", 4)], Stopwatch())
    with pytest.raises(CompressionError, match="no tokens have merged"):
        unmerged.keep_unpooled(scenes(4), lambda maps: maps)
    with pytest.raises(MethodError, match="layers"):
        ClipSession(EarlyTom(merge_layers=(30,)), FrameGrid(frames=4, rows=2, columns=2), SHAPE)


@pytest.mark.parametrize("grids", [1, 3, 5, 9])
def test_parts_of_a_batch_join_to_the_batch(grids) -> None:
    whole = FrameBatch(hidden=scenes(9), others=(scenes(9, 1), scenes(9, 2)), grids_per_clip=(5, 4), class_tokens=1)
    parts = list(whole.parts(grids))
    assert max(part.hidden.shape[0] for part in parts) <= grids
    again = FrameBatch.joined(parts, whole.grids_per_clip)
    assert again.grids_per_clip == (5, 4)
    assert torch.equal(again.patches, whole.hidden[:, 1:])
    assert all(torch.equal(*pair) for pair in zip(again.others, whole.others, strict=True))


@pytest.mark.parametrize("grids", [1, 3, 5, 9])
def test_parts_that_are_made_one_by_one_are_gathered_over_the_batch_they_were_cut_from(grids) -> None:
    whole = FrameBatch(hidden=scenes(9), others=(scenes(9, 1),), grids_per_clip=(5, 4), class_tokens=1)
    expected = whole.with_hidden(whole.hidden * 2, whole.hidden.double()[:, 0])
    storage = whole.hidden.data_ptr()
    parts = (part.with_hidden(part.hidden * 2, part.hidden.double()[:, 0]) for part in whole.parts(grids))
    found = FrameBatch.gathered(parts, whole.grids_per_clip, over=whole)
    assert found.hidden.data_ptr() == storage
    assert (found.grids_per_clip, found.class_tokens) == ((5, 4), 1)
    assert torch.equal(found.hidden, expected.hidden)
    assert all(torch.equal(*pair) for pair in zip(found.others, expected.others, strict=True))
    again = FrameBatch.gathered(iter(found.parts(grids)), (9,))
    assert again.hidden.data_ptr() != storage
    assert torch.equal(again.hidden, found.hidden)


def test_parts_of_another_kind_leave_the_batch_as_it_was() -> None:
    whole = FrameBatch(hidden=scenes(4), grids_per_clip=(4,))
    before = whole.hidden.clone()
    parts = (part.with_hidden(part.hidden.double()) for part in whole.parts(3))
    assert FrameBatch.gathered(parts, (4,), over=whole).hidden.dtype == torch.float64
    assert torch.equal(whole.hidden, before)


def test_class_tokens_merge_with_their_grid_and_are_never_shown() -> None:
    class Pairing(Method):
        name = "pairing"

        def encoder_plan(self, encoder):
            return EncoderPlan(merge_layers=(0,))

        def merge_frames(self, states, layer, floor):
            assert states.features.shape[1] == TOKENS - 1
            return Decision(reduction=Reduction.from_rows([[(0, 0.5), (1, 0.5)], [(2, 1.0)]], 3))

    grid = FrameGrid(frames=3, rows=1, columns=TOKENS - 1)
    sessions, hidden = SessionBatch([ClipSession(Pairing(), grid, SHAPE)], Stopwatch()), scenes(3)
    batch = sessions.after_layer(0, FrameBatch(hidden=hidden, grids_per_clip=(3,), class_tokens=1))
    torch.testing.assert_close(batch.hidden[0], (hidden[0] + hidden[1]) / 2)
    assert torch.equal(batch.hidden[1], hidden[2])
    assert batch.grids_per_clip == (2,)
