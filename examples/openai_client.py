"""Ask a running ``dpo-driver serve`` with the openai client: answers, a stream, and what came of them.

    dpo-driver serve --model base=pocket              # prints its token
    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=TOKEN python examples/openai_client.py

The messages are those of a pocket model: a page as a list of elements, and a goal. Needs ``pip install openai``.
"""

from __future__ import annotations

import sys
from typing import Any

from openai import OpenAI

PAGE = "button Cancel[1]\nbutton Save[2]\nlink Help[3]\n"


def main(model: str = "auto") -> None:
    """Ask ``model``; ``auto`` lets the server choose: the champion, or an arm of its split."""
    client = OpenAI()
    print("models:", ", ".join(each.id for each in client.models.list()))
    messages: Any = [{"role": "user", "content": f'{PAGE}goal: Press "Save".\n'}]

    # One session stays with one model, whatever the split.
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, temperature=0, max_tokens=64, extra_headers={"X-Session-Id": "example"}
    )
    answer = raw.parse()
    text = answer.choices[0].message.content or ""
    print(f"{raw.headers['x-model-version']} ({raw.headers['x-model-arm']}):", text.replace("\n", " | "))

    print("stream:", end=" ")
    for event in client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=64, stream=True
    ):
        for choice in event.choices:
            print((choice.delta.content or "").replace("\n", " | "), end="", flush=True)
    print()

    # What came of it: kept on disk before the server answers, and read by the next training.
    outcome = {"id": answer.id, "success": "click([2])" in text, "rating": 1.0 if "click([2])" in text else -1.0}
    kept = client.post("/feedback", body=outcome, cast_to=dict[str, Any])
    print("kept as number", kept["kept"])


if __name__ == "__main__":
    main(*sys.argv[1:])
