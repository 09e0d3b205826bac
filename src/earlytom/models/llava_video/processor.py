"""The processor of LLaVA-Video: stock video processing and tokenizer, and the prompt that the model is used to."""

from __future__ import annotations

from typing import Any, Protocol

from transformers import ProcessorMixin
from transformers.tokenization_utils_base import AddedToken

from earlytom.errors import ModelError
from earlytom.models.llava_video.layout import VideoLayout
from earlytom.types import FrameGrid

__all__ = ["CHAT_TEMPLATE", "VIDEO_TOKEN", "LlavaVideoProcessor", "TimedVideo", "add_video_token"]

VIDEO_TOKEN = "<video>"

CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<video>\n{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}{{ raise_exception('LLaVA-Video takes videos and text, not ' + part['type']) }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The conversation template that LLaVA calls ``qwen_1_5``."""


class TimedVideo(Protocol):
    """What `LlavaVideoProcessor.instruction` asks of a video; `earlytom.Video` has it."""

    @property
    def timestamps(self) -> tuple[float, ...]:
        """The frames' times in seconds; empty where there is no clock."""

    @property
    def duration(self) -> float | None:
        """Seconds from the first frame's start to the last one's end, where known."""


class LlavaVideoProcessor(ProcessorMixin):  # type: ignore[misc]  # transformers carries no annotations
    """Turns prompts and videos into the model's inputs.

    Args:
        tokenizer: Qwen2's, with ``<video>`` added (`add_video_token`).
        video_processor: resizes and normalises frames.
        chat_template: see `CHAT_TEMPLATE`.
        patches_per_side: rows and columns of patches of a frame.
        spatial_pool_mode: as in the model's configuration; likewise the following two.
        spatial_pool_stride: patches that become one token, along each side.
        newline_position: where newlines stand.
        add_time_instruction: whether questions begin with the frames' times.

    Raises:
        ModelError: a value is not allowed.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: str | None = None,
        patches_per_side: int = 27,
        spatial_pool_mode: str = "bilinear",
        spatial_pool_stride: int = 2,
        newline_position: str = "grid",
        add_time_instruction: bool = True,
        **kwargs: Any,
    ) -> None:
        self.patches_per_side, self.add_time_instruction = patches_per_side, add_time_instruction
        self.spatial_pool_mode, self.spatial_pool_stride = spatial_pool_mode, spatial_pool_stride
        self.newline_position = newline_position
        VideoLayout.of(self).pooled(patches_per_side)
        self.video_token = VIDEO_TOKEN
        self.video_token_id = tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
        super().__init__(tokenizer, video_processor, chat_template=chat_template)

    def __call__(self, images: Any = None, text: Any = None, videos: Any = None, **kwargs: Any) -> Any:
        """Like that of every processor. Raises `ModelError` for images."""
        if images is not None:
            raise ModelError("images are not supported with LLaVA-Video; give a video of one frame instead")
        return super().__call__(text=text, videos=videos, **kwargs)

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The placeholders of one processed video."""
        return VIDEO_TOKEN * self.placeholders(len(video_inputs["pixel_values_videos"][video_idx]))

    def placeholders(self, frames: int) -> int:
        """Positions that an uncompressed video takes in the prompt, newlines included."""
        layout = VideoLayout.of(self)
        side = layout.pooled(self.patches_per_side)
        return layout.length(FrameGrid(frames=frames, rows=side, columns=side))

    def instruction(self, video: TimedVideo) -> str:
        """What stands before a question about a video: its length and the frames' times, as the model was trained.

        Empty where the video has no clock, or the model was trained without.
        """
        if not self.add_time_instruction or not video.timestamps or video.duration is None:
            return ""
        times = ",".join(f"{time:.2f}s" for time in video.timestamps)
        return (
            f"The video lasts for {video.duration:.2f} seconds, and {len(video.timestamps)} frames are uniformly "
            f"sampled from it. These frames are located at {times}.Please answer the following questions related to "
            "this video.\n"
        )


def add_video_token(tokenizer: Any) -> int:
    """Give a tokenizer the placeholder, where it has none; return its id."""
    if VIDEO_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(VIDEO_TOKEN, special=True, normalized=False)], special_tokens=True)
    return int(tokenizer.convert_tokens_to_ids(VIDEO_TOKEN))
