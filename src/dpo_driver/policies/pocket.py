"""The pocket model's parts: a tokenizer of single characters and page tokens, a Qwen3 configuration, a chat template.

Letters, digits and punctuation are single tokens, so the same string looks the same wherever it stands and copying
is one hop of attention. Element numbers (``[7]``), action heads (``click(``), role names and line markers are single
tokens. Called by training/pretrain.py, which writes the folder that :mod:`transformers` loads like any other model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config

PAD, EOS = "<pad>", "<eos>"
MAX_REF = 120
ROLES = (
    "button link textbox textarea checkbox radio combobox slider spinbutton option text heading tab dialog menuitem "
    "cell image clickable item date time number color file label listitem"
).split()
# The vocabulary of trained models: an action that the grammar learns later is spelled in characters.
HEADS = (
    "click dblclick fill type clear press keyboard_press hover focus select_option scroll drag_and_drop goto go_back "
    "go_forward noop send_msg_to_user report_infeasible"
).split()
STATES = ("checked", "selected", "expanded", "collapsed", "disabled", "readonly", "required", "invalid")
# A message's content follows the one before it without a marker: the user turn already ends with the goal's line.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}" + EOS + "{% elif message['role'] == 'system' %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level characters (256) plus the added tokens; any text round-trips."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, EOS])
    markers = ["thought: ", "\naction: ", "past: ", "goal: ", ', "', '")', "; "]
    markers += [f"{name}(" for name in HEADS]
    markers += [f" ({state})" for state in STATES] + [f" #{n}" for n in range(2, 10)]
    markers += [f"[{n}]" for n in range(1, MAX_REF + 1)]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in markers])
    tokenizer.add_tokens([AddedToken(role, normalized=False, single_word=True) for role in ROLES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def build_config(tokenizer: PreTrainedTokenizerFast, *, layers: int, width: int, heads: int, ff: int) -> Qwen3Config:
    """A standard Qwen3 configuration of the given size with tied embeddings."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=(len(tokenizer) + 7) // 8 * 8,
        hidden_size=width,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def pocket_folder() -> Path:
    """Where the package keeps the pocket model."""
    return Path(__file__).resolve().parent.parent / "models" / "pocket"
