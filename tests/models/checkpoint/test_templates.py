"""Chat templates are programs: what they may do, what they are kept from, and that they write what they always did."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import earlytom
from earlytom.models import FAMILIES
from earlytom.models.checkpoint import templates
from earlytom.models.checkpoint.templates import write_prompt
from earlytom.models.llava_video.processor import CHAT_TEMPLATE
from families.processors import video_qa

SHIPPED = tuple(
    (Path(earlytom.shipped_model(name)) / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("llava_onevision", "qwen2_5_vl")
)
# As checkpoints have them, a dialogue with pictures in it and a system prompt unless there is one.
PUBLISHED = """{% set seen = namespace(pictures=0) %}{% for message in messages %}
{%- if loop.first and message.role != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content | trim }}{% else %}{% for part in message.content %}
{%- if part.type == 'video' or 'video' in part %}
{%- set seen.pictures = seen.pictures + 1 %}<|video_pad|>{{ seen.pictures }}
{%- elif 'text' in part %}{{ part.text | tojson }}{{ bos_token or '' }}{{ pad_token }}
{%- endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = {
    "loops in loops": LOOPS,
    "a power of a power": "{{ 10 ** (10 ** 10) }}",
    "lists in lists": "{% set n = namespace(x=1) %}"
    "{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a wide number": "{{ '%0999999999d' % 1 }}",
    "a padded text": "{{ 'a'.center(10**10) }}",
    "a text doubled": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a long prompt": "{{ 'a' * 10**8 }}",
}  # fmt: skip

SLOW = ("loops in loops", "a power of a power", "lists in lists")


def conversation(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]


@pytest.fixture
def processor() -> Any:
    return video_qa("qwen2_5_vl").processor


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_SECONDS", 2.0)


@pytest.mark.parametrize("question", ["What?", "", "  <b>\\n\n\"'&{{ 1 }} \u2028 \U0001f600 \ud800 ", "x" * 100_000])
@pytest.mark.parametrize("template", [PUBLISHED, *SHIPPED, CHAT_TEMPLATE], ids=range(4))
def test_prompts_are_those_of_transformers(template, question, processor) -> None:
    processor.chat_template = template
    expected = processor.apply_chat_template(conversation(question), add_generation_prompt=True)
    assert write_prompt(processor, conversation(question)) == expected
    processor.chat_template = {"default": template, "other": "x"}
    assert write_prompt(processor, conversation(question)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_every_family_are_those_of_transformers(family) -> None:
    processor = video_qa(family).processor
    expected = processor.apply_chat_template(conversation("what moves here ?"), add_generation_prompt=True)
    assert write_prompt(processor, conversation("what moves here ?")) == expected


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_templates_are_refused(hostile, processor, short_limit) -> None:
    if sys.platform != "linux" and hostile not in SLOW:
        pytest.skip("memory is limited on Linux")
    processor.chat_template = HOSTILE[hostile] + PUBLISHED
    with pytest.raises(earlytom.ModelError, match=r"the chat template \(chat_template\.jinja\) (takes|needs|writes)"):
        write_prompt(processor, conversation("What?"))
    processor.chat_template = PUBLISHED
    assert "What?" in write_prompt(processor, conversation("What?"))


def test_a_template_that_is_hostile_to_one_question_only(tmp_path, short_limit) -> None:
    folder = tmp_path / "model"
    shutil.copytree(earlytom.shipped_model(), folder)
    trap = "{% if 'probe' not in messages[0].content[1].text %}" + LOOPS + "{% endif %}"
    (folder / "chat_template.jinja").write_text(SHIPPED[0] + trap)
    qa = earlytom.VideoQA.load(folder, device="cpu")
    with pytest.raises(earlytom.ModelError, match="takes longer than 2 s"):
        qa.ask(np.zeros((4, 64, 64, 3), dtype=np.uint8), "What?", max_new_tokens=1)


def test_errors_of_a_template_are_told_as_they_were(processor) -> None:
    for template in (
        "{% for",
        "{{ raise_exception('no pictures, please') }}",
        "{{ 1 // 0 }}",
        "{{ messages | nothing }}",
    ):
        processor.chat_template = template
        with pytest.raises(Exception, match=r"\w") as stock:
            processor.apply_chat_template(conversation("What?"), add_generation_prompt=True)
        with pytest.raises(Exception, match=r"\w") as ours:
            write_prompt(processor, conversation("What?"))
        assert (type(ours.value).__name__, str(ours.value)) == (type(stock.value).__name__, str(stock.value))


def test_what_comes_with_the_package_needs_no_process(monkeypatch, processor) -> None:
    monkeypatch.setattr(templates, "_RENDERER", None)
    for template in (*SHIPPED, CHAT_TEMPLATE):
        processor.chat_template = template
        templates.start_renderer(template)
        assert "What?" in write_prompt(processor, conversation("What?"))


def test_a_processor_s_own_way_is_its_own(processor) -> None:
    class Own(type(processor)):
        def apply_chat_template(self, conversation, **_):
            return "mine"

    processor.__class__ = Own
    assert write_prompt(processor, conversation("What?")) == "mine"


def test_threads_get_each_their_own_prompt(processor) -> None:
    processor.chat_template = PUBLISHED
    wrong: list[int] = []

    def ask(number: int) -> None:
        wrong.extend(
            n for n in range(30) if f"{number}-{n}-" not in write_prompt(processor, conversation(f"{number}-{n}-"))
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX forks")
def test_a_fork_renders_by_itself_and_nothing_outlives_its_starter(tmp_path) -> None:
    program = f"""
import os, sys
sys.path[:] = {[str(Path(__file__).parents[2]), *sys.path]!r}
from earlytom.models.checkpoint import templates
from models.checkpoint.test_templates import PUBLISHED, conversation, video_qa
processor = video_qa("qwen2_5_vl").processor
processor.chat_template = PUBLISHED
whole = templates.write_prompt(processor, conversation("What?"))
first = templates._RENDERER._process.pid
child = os.fork()
if not child:
    again = templates.write_prompt(processor, conversation("What?"))
    os._exit(0 if again == whole and templates._RENDERER._process.pid != first else 1)
_, status = os.waitpid(child, 0)
assert templates.write_prompt(processor, conversation("What?")) == whole
print(status, first)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    status, first = map(int, done.stdout.split()[-2:])
    assert status == 0
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_an_interrupt_leaves_no_answer_for_the_next_question(processor, monkeypatch) -> None:
    processor.chat_template = PUBLISHED
    write_prompt(processor, conversation("first"))

    def interrupted(stream: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    real = templates._stream
    monkeypatch.setattr(templates, "_stream", lambda stream: real(stream) if stream.writable() else interrupted(stream))
    with pytest.raises(KeyboardInterrupt):
        write_prompt(processor, conversation("second"))
    assert "third" in write_prompt(processor, conversation("third"))


@pytest.mark.parametrize("executable", ["/nonexistent/python", "/bin/true", ""])
def test_where_no_process_can_be_started_there_is_a_warning_once(executable, processor, monkeypatch) -> None:
    processor.chat_template = PUBLISHED
    expected = processor.apply_chat_template(conversation("What?"), add_generation_prompt=True)
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(templates, "_RENDERER", templates._Renderer())
    if executable:
        with pytest.warns(UserWarning, match="no process can be started for chat templates"):
            assert write_prompt(processor, conversation("What?")) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_prompt(processor, conversation("What?")) == expected


def test_one_process_serves_all_questions(processor) -> None:
    processor.chat_template = PUBLISHED
    write_prompt(processor, conversation("What?"))
    before = templates._RENDERER._process
    for _ in range(3):
        write_prompt(processor, conversation("What?"))
    assert templates._RENDERER._process is before is not None
