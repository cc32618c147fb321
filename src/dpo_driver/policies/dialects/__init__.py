"""How chat endpoints are spoken to: a file a dialect, and the table of them. Called by policies/providers.py and
policies/endpoint.py. Knows neither keys nor connections.
"""

from __future__ import annotations

from dpo_driver.policies.dialects import anthropic, openai
from dpo_driver.policies.dialects.common import Dialect

DIALECTS: dict[str, Dialect] = {"openai": openai.OpenAIDialect(), "anthropic": anthropic.AnthropicDialect()}
