"""The paper's FLOPs, by the count that gives its tables, beside true floating-point operations.

The tables mix two counts. Those of the LLaVA models (main table, Table 6) add multiply-adds of the language model on
the visual tokens, with as many heads of keys as of queries and two of the three matrices of its MLP, to one constant
for the whole vision side. Table 7 (Qwen2.5-VL) fits true operations of the language model, two for each multiply-add,
again beside a constant. The constants are what the rows without compression leave; no count of the vision encoders
gives them, so true operations (`earlytom.runtime.flops`) are the headline and these figures stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from earlytom.bench.published import PublishedRow, published_rows
from earlytom.errors import EarlyTomError, shown

__all__ = [
    "PAPER_MODELS",
    "AccountingRow",
    "LanguageShape",
    "PaperFlops",
    "PaperModel",
    "account",
    "paper_flops",
    "tokens_per_layer",
]

_TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class LanguageShape:
    """Sizes of a language model of the Llama and Qwen kind.

    Attributes:
        layers: decoder layers.
        width: of the hidden states.
        inner: width inside the MLP.
        key_width: of all heads of keys together.
    """

    layers: int
    width: int
    inner: int
    key_width: int

    def multiply_adds(self, tokens: Sequence[int]) -> int:
        """F(n) = 4 n d^2 + 2 n^2 d + 2 n d m, summed over the layers: what the LLaVA tables count.

        Args:
            tokens: that each layer gets.
        """
        width, inner = self.width, self.inner
        return sum(4 * n * width**2 + 2 * n**2 * width + 2 * n * width * inner for n in tokens)

    def operations(self, tokens: Sequence[int]) -> int:
        """Two for each multiply-add, grouped keys, three matrices of the MLP, the whole attention matrix, no logits."""
        width, projections = self.width, 2 * self.width + 2 * self.key_width
        return 2 * sum(n * width * projections + 2 * n**2 * width + 3 * n * width * self.inner for n in tokens)


@dataclass(frozen=True, kw_only=True)
class PaperModel:
    """A model of the paper, and how its table counts.

    Attributes:
        language: its language model.
        visual_tokens: of the paper's clip, uncompressed.
        frames: of that clip; ``None`` where the vision side grows with tokens, for frames of any size.
        vision: what the table leaves for the vision side of that clip, uncompressed.
        true_operations: whether the language model is counted by true operations, not multiply-adds.
        inner_merging: whether the table's rows of HoliTom and EarlyTom merge tokens inside the language model; ``None``
            where neither the paper nor the figures settle it, so that both are told.
    """

    language: LanguageShape
    visual_tokens: int
    frames: int | None
    vision: float
    true_operations: bool = False
    inner_merging: bool | None = True

    def language_flops(self, tokens: Sequence[int]) -> int:
        """What the table counts for the language model, where its layers get so many visual tokens."""
        return self.language.operations(tokens) if self.true_operations else self.language.multiply_adds(tokens)


_QWEN2_7B = LanguageShape(layers=28, width=3584, inner=18944, key_width=512)
PAPER_MODELS: Mapping[str, PaperModel] = {
    "llava-onevision-7b": PaperModel(language=_QWEN2_7B, visual_tokens=32 * 196, frames=32, vision=41.8e12),
    "llava-onevision-0.5b": PaperModel(
        language=LanguageShape(layers=24, width=896, inner=4864, key_width=128),
        visual_tokens=32 * 196,
        frames=32,
        vision=41.8e12,
    ),
    "llava-video-7b": PaperModel(language=_QWEN2_7B, visual_tokens=64 * 196, frames=64, vision=148.9e12),
    "qwen2.5-vl-7b": PaperModel(
        language=_QWEN2_7B,
        visual_tokens=23_000,
        frames=None,
        vision=42.2e12,
        true_operations=True,
        inner_merging=None,
    ),
}
"""The models of the paper's tables."""


@dataclass(frozen=True, kw_only=True)
class PaperFlops:
    """FLOPs by the paper's count."""

    language: int
    vision: int

    @property
    def total(self) -> int:
        """Both."""
        return self.language + self.vision

    def to_dict(self) -> dict[str, int]:
        """As plain data."""
        return {"language": self.language, "vision": self.vision, "total": self.total}


def tokens_per_layer(entering: int, layers: int, after: Mapping[int, int] | None = None) -> list[int]:
    """The visual tokens that each layer of a language model gets.

    Args:
        entering: tokens that the first one gets.
        layers: of the language model.
        after: tokens that are left before each layer where some leave.

    Raises:
        EarlyTomError: a layer that the model has not.
    """
    wrong = [layer for layer in after or {} if not 0 <= layer < layers]
    if wrong:
        raise EarlyTomError(f"the language model has layers 0 to {layers - 1}, got tokens before layer {wrong[0]}")
    tokens = []
    for layer in range(layers):
        entering = (after or {}).get(layer, entering)
        tokens.append(entering)
    return tokens


def paper_flops(
    model: str, tokens: Sequence[int], *, frames: int, uncompressed: int, encoder_share: float = 1.0
) -> PaperFlops | None:
    """FLOPs of a call by the count of the paper's table for this model.

    The paper tells its constant for one clip without merged frames; here it grows with the clip, and shrinks with the
    work that the encoder is spared. Both are our reading: the paper's rows for EarlyTom leave 70% of the constant at
    every retention and do not tell how many frames were left.

    Args:
        model: a name of `PAPER_MODELS`.
        tokens: visual tokens, without newlines, that each layer of the language model gets; see `tokens_per_layer`.
        frames: sampled frames.
        uncompressed: visual tokens without compression.
        encoder_share: operations of the vision encoder over those without compression.

    Returns:
        The FLOPs; ``None`` for a model that is not in the paper's tables.

    Raises:
        EarlyTomError: not one number of tokens a layer.
    """
    if model not in PAPER_MODELS:
        return None
    paper = PAPER_MODELS[model]
    if len(tokens) != paper.language.layers:
        raise EarlyTomError(f"{model} has {paper.language.layers} language layers, got tokens of {len(tokens)}")
    size = uncompressed / paper.visual_tokens if paper.frames is None else frames / paper.frames
    return PaperFlops(language=paper.language_flops(tokens), vision=round(paper.vision * size * encoder_share))


@dataclass(frozen=True, kw_only=True)
class AccountingRow:
    """A published figure beside what counting gives, in 1e12 floating-point operations.

    Attributes:
        published: the row of the paper's table.
        reading: how it was read, where the paper does not settle it and the row stands there once for each reading;
            ``""`` for all others.
        language: the language model by the table's count.
        vision_left: what the published figure leaves for the vision side.
        formula: language model and constant together; ``None`` where frames merge in the encoder, since the paper does
            not tell how many are left.
        difference: published less formula; ``None`` where either is missing.
        true: true operations from pixels to the first token, visual tokens alone; ``None`` like ``formula``.
    """

    published: PublishedRow
    reading: str = ""
    language: float
    vision_left: float | None
    formula: float | None
    difference: float | None
    true: float | None


def account(
    model: str, count: Callable[[Sequence[int]], int] | None = None, rows: Sequence[PublishedRow] | None = None
) -> list[AccountingRow]:
    """The published FLOPs of a model, row by row, beside what counting gives.

    Args:
        model: a name of `PAPER_MODELS`.
        count: gives the true operations of a clip of the paper's size whose visual tokens in each language layer are
            the argument; without it they are left out.
        rows: the paper's rows; all of the model's if ``None``.

    Raises:
        EarlyTomError: the paper has no table for this model.
    """
    if model not in PAPER_MODELS:
        raise EarlyTomError(f"the paper has no table for {shown(model)}; it has them for {', '.join(PAPER_MODELS)}")
    chosen = published_rows(model) if rows is None else rows
    found = PAPER_MODELS[model]
    return [
        _account_row(found, row, merged, reading, count)
        for row in chosen
        for merged, reading in _readings(found, row).items()
    ]


def _readings(model: PaperModel, row: PublishedRow) -> dict[bool, str]:
    """Whether tokens merge inside the language model in a published row, and what to call that; both if unsettled."""
    if row.method not in _INNER_MERGING or row.retention == 1:
        return {False: ""}
    if model.inner_merging is None:
        return {False: "without inner merging", True: "with inner merging"}
    return {model.inner_merging: ""}


def _account_row(
    model: PaperModel, row: PublishedRow, merged: bool, reading: str, count: Callable[[Sequence[int]], int] | None
) -> AccountingRow:
    tokens = _published_tokens(model, row, merged)
    language = model.language_flops(tokens) / _TERA
    merges = row.method == "earlytom"
    formula = None if merges else language + model.vision / _TERA
    return AccountingRow(
        published=row,
        reading=reading,
        language=language,
        vision_left=None if row.tera_flops is None else row.tera_flops - language,
        formula=formula,
        difference=None if formula is None or row.tera_flops is None else row.tera_flops - formula,
        true=None if merges or count is None else count(tokens) / _TERA,
    )


# The settings that the methods' papers and the supplementary's Table 8 name. Table 8 is about the LLaVA models.
_INNER_LAYER, _INNER_SHARE = 18, 0.5
_FASTV_LAYER, _FASTV_SHARE = 2, 0.2
_PYRAMID_STAGES, _PYRAMID_SHARE = 4, 0.5
_INNER_MERGING = ("holitom", "earlytom")


def _published_tokens(model: PaperModel, row: PublishedRow, merged: bool) -> list[int]:
    """The visual tokens that each layer gets in the setting that a row was published for."""
    layers, entering = model.language.layers, round(row.retention * model.visual_tokens)
    shares: dict[int, float] = {}
    if merged:
        shares = {_INNER_LAYER: _INNER_SHARE}
    elif row.method == "fastv":
        shares = {_FASTV_LAYER: _FASTV_SHARE}
    elif row.method == "pyramiddrop":
        shares = {stage * layers // _PYRAMID_STAGES: _PYRAMID_SHARE**stage for stage in range(1, _PYRAMID_STAGES)}
    return tokens_per_layer(entering, layers, {layer: round(share * entering) for layer, share in shares.items()})
