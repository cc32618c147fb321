"""Tools and tool calls on their way to tokens: each chat template's own words, or a refusal; never left out."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest

from dpo_driver.core.errors import ModelError
from dpo_driver.core.records import Message, ToolCall, TrainingSample
from dpo_driver.core.tool_calls import split_calls, write_calls
from dpo_driver.policies.encoding import encode_completion, encode_prompt
from dpo_driver.policies.pocket import build_tokenizer
from dpo_driver.preferences.decisions import digest
from dpo_driver.preferences.formats import parse_preference, parse_samples, sample_row
from dpo_driver.testing.tiny_models import tiny_model
from dpo_driver.training.engine import train
from dpo_driver.training.rows import encode_rows
from tool_rows import ASKED, CALLED, GUESSED, LOOKED, SPEAKERS, TOOLS, call, say, tokenizer_of

data_utils = pytest.importorskip("trl.data_utils")


@pytest.mark.parametrize("template", SPEAKERS)
@pytest.mark.parametrize("answer", [0, 2])
def test_tools_and_calls_are_tokens_as_the_chat_template_has_them(template: str, answer: int) -> None:
    """Prompt and completion together are the conversation that TRL tokenizes, up to the end of the turn."""
    tokenizer = tokenizer_of(template)
    conversation = [*ASKED, *LOOKED[: answer + 1]]
    sample = parse_samples({"messages": conversation, "tools": TOOLS})[-1]
    prompt, completion = encode_prompt(tokenizer, sample.messages), encode_completion(tokenizer, sample.completion)
    expected = data_utils.apply_chat_template({"messages": conversation}, tokenizer, tools=TOOLS)["text"]
    assert tokenizer.decode([*prompt, *completion]) == expected.rstrip("\n")
    assert expected.count("look_up") >= 2 and completion[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(prompt).count("book it") == 1


def test_a_template_without_words_for_tools_is_refused() -> None:
    tokenizer = build_tokenizer()  # the pocket model's
    user = Message(role="user", content="q")
    called = Message(role="assistant", content="", tool_calls=(ToolCall(name="f"),))
    with pytest.raises(ModelError, match="does not write tools"):
        encode_prompt(tokenizer, [user.model_copy(update={"tools": json.dumps(TOOLS)})])
    with pytest.raises(ModelError, match="does not write tool calls"):
        encode_prompt(tokenizer, [user, called, user])
    with pytest.raises(ModelError, match="does not write tool calls"):
        encode_completion(tokenizer, write_calls("", called.tool_calls))
    llama = tokenizer_of("llama3_1")
    with pytest.raises(ModelError, match="single tool-calls"):
        encode_prompt(llama, [user, called.model_copy(update={"tool_calls": called.tool_calls * 2}), user])
    with pytest.raises(ModelError, match="a text beside tool calls"):
        encode_completion(llama, write_calls("I say", called.tool_calls))


def test_a_conversation_with_tools_is_trained_on_from_ln_2(tmp_path: Path) -> None:
    """Both answers of the better side count: the call, and what is said once its result is there."""
    model, _ = tiny_model()
    tokenizer = tokenizer_of("qwen3")
    model.resize_token_embeddings(len(tokenizer))
    pair = parse_preference({"prompt": ASKED, "chosen": LOOKED, "rejected": GUESSED, "tools": TOOLS})
    other = parse_preference({"prompt": ASKED, "chosen": CALLED, "rejected": GUESSED, "tools": TOOLS})
    settings = {"max_steps": 2, "learning_rate": 1e-2, "per_device_train_batch_size": 2, "logging_steps": 1}
    result = train("dpo", model.requires_grad_(True), tokenizer, [pair, other], [], settings, tmp_path)
    assert result.history[0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert result.metrics["preference_loss"] < math.log(2) - 1e-2 and result.rows["train"] == 2
    (example,) = encode_rows(tokenizer, [pair], max_length=9999).examples
    said = "".join(tokenizer.decode(completion) for _, completion in example.chosen_turns)
    assert said.count("look_up") == 1 and "rain" not in said and "Yes." in said


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        '<tool_call>\n{"name": "f"}\n</tool_call>',
        '<tool_call>\n{"name":"f","arguments":{}}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call> done',
        'x<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
    ],
)
def test_only_what_was_written_as_a_call_is_read_as_one(text: str) -> None:
    assert split_calls(text) == (text, ())


def test_messages_without_tools_are_stored_as_ever() -> None:
    message = Message(role="user", content="x")
    assert message.model_dump_json() == '{"role":"user","content":"x"}'
    assert Message.model_validate_json('{"role":"user","content":"x"}') == message
    before = json.dumps([[["user", "x"]], "y"], separators=(",", ":"))  # ids of rows that are stored already
    assert digest([message], "y") == hashlib.sha256(before.encode()).hexdigest()[:16]
    offered = message.model_copy(update={"tools": json.dumps(TOOLS)})
    assert Message.model_validate_json(offered.model_dump_json()) == offered
    assert digest([offered], "y") != digest([message], "y") and hash(offered) != hash(message)


def test_sample_rows_keep_tools() -> None:
    sample = TrainingSample(
        id="s", source="t", completion=write_calls("", (ToolCall(name="book", arguments='{"day": 3}'),)),
        messages=(Message(role="user", content="q", tools=json.dumps(TOOLS)),),
    )  # fmt: skip
    row = sample_row(sample)
    assert row["tools"] == TOOLS and row["prompt"] == [say("user", "q")]
    assert row["completion"] == [say("assistant", "", tool_calls=[call("book", day=3)])]
