"""What commands that ask a model at an endpoint share: its options, the policy they make, and cost in words. They are
those of ``solve``. Imported by cli files only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dpo_driver.core.records import Usage
    from dpo_driver.policies.budget import Meter
    from dpo_driver.policies.endpoint import EndpointPolicy

ProviderName = Annotated[str, typer.Option("--provider", help="google, anthropic, openai, azure or local (a server).")]
ModelName = Annotated[str | None, typer.Option("--model", help="Its name.", show_default="the provider's")]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", "--endpoint", metavar="URL", help="Of the model.", show_default="the provider's"),
]
KeyVariable = Annotated[
    str | None, typer.Option("--key-env", help="Variable that holds the key.", show_default="the provider's")
]
PriceOfTokens = Annotated[
    str | None, typer.Option("--price", metavar="IN,OUT", help="Dollars a million tokens.", show_default="known")
]
BudgetTokens = Annotated[
    int | None, typer.Option("--budget-tokens", min=1, help="Of all calls, earlier ones of this job included.")
]
BudgetDollars = Annotated[
    float | None, typer.Option("--budget-usd", min=0, help="Of all calls, earlier ones of this job included.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Calls at once.")]


def endpoint(
    provider: str, model: str | None, base_url: str | None, key_env: str | None, price: str | None,
    budget_tokens: int | None, budget_usd: float | None, jobs: int,
) -> Callable[[], AbstractContextManager[tuple[EndpointPolicy, Meter]]]:  # fmt: skip
    """Checks the options, and gives what opens the policy that they mean, with the meter of its budget.

    Raises:
        ConfigError, UnknownNameError: an option, or the key, cannot be used.
    """
    from dpo_driver.policies.budget import Budget, Meter, Price
    from dpo_driver.policies.endpoint import EndpointPolicy
    from dpo_driver.policies.providers import provider as preset

    chosen = preset(provider, model, base_url, key_env=key_env)
    costs = Price.parse(price) if price else None
    meter = Meter(Budget(budget_tokens, budget_usd))

    @contextmanager
    def connect() -> Iterator[tuple[EndpointPolicy, Meter]]:
        with closing(EndpointPolicy(chosen, price=costs, concurrency=jobs, meter=meter)) as policy:
            yield policy, meter

    return connect


def cost(usage: Usage) -> str:
    """``1,204 tokens in, 310 out, $0.0012``."""
    money = "price unknown" if usage.cost is None else f"${usage.cost:.4f}"
    return f"{'about ' * usage.estimated}{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out, {money}"
