"""Conversations that published numbers were made with, where they differ from a checkpoint's own chat template."""

from __future__ import annotations

from typing import Any

from biaskit.errors import ModelError

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

CONVERSATIONS = {
    "vicuna_v1": "{% if not messages or messages[0]['role'] != 'system' %}" + _SYSTEM + " {% endif %}"
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}USER: {% elif m['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' %}</s>{% else %} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
}
"""Name → chat template. `vicuna_v1`: of LLaVA-1.5's own evaluation code (`conv_vicuna_v1`), with the system prompt that the -hf template
leaves out."""


def converse(processor: Any, name: str) -> None:
    """Give a processor the chat template of a conversation.

    Raises:
        ModelError: it is not known.
    """
    if name not in CONVERSATIONS:
        raise ModelError(
            f"unknown conversation {name!r}", f"the conversations are {', '.join(CONVERSATIONS)}; without, the checkpoint's own"
        )
    processor.chat_template = CONVERSATIONS[name]
