"""The ceiling: a scripted expert for each task family. Gives demonstrations for SFT and the score to compare with.

Experts are stateless functions of what a model sees too, and act through the same actions; their thought is the target
element's label. Must not import environments or policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dpo_driver.agents.experts import clicking, forms
from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Noop
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, Task

Expert = Callable[[Page], Decision]

ORACLES: dict[str, Expert] = {
    "choose-list": forms.choose_from_list,
    "click-button": clicking.click_button,
    "click-button-sequence": clicking.click_button_sequence,
    "click-checkboxes": forms.tick_checkboxes,
    "click-checkboxes-large": forms.tick_checkboxes,
    "click-checkboxes-transfer": forms.tick_checkboxes,
    "click-collapsible": clicking.expand_and_submit,
    "click-collapsible-2": clicking.find_link_behind_tabs,
    "click-dialog": clicking.close_dialog,
    "click-dialog-2": clicking.click_dialog_button,
    "click-link": clicking.click_link,
    "click-option": forms.choose_radio,
    "click-tab": clicking.click_tab,
    "click-tab-2": clicking.find_link_behind_tabs,
    "click-tab-2-easy": clicking.find_link_behind_tabs,
    "click-tab-2-hard": clicking.find_link_behind_tabs,
    "click-tab-2-medium": clicking.find_link_behind_tabs,
    "click-test": clicking.click_only_button,
    "click-test-2": clicking.click_numbered_button,
    "click-test-transfer": clicking.click_numbered_button,
    "click-widget": clicking.click_widget,
    "enter-date": forms.enter_date,
    "enter-password": forms.enter_password,
    "enter-text": forms.enter_text,
    "enter-text-2": forms.enter_text_in_case,
    "enter-text-dynamic": forms.enter_text,
    "enter-time": forms.enter_time,
    "focus-text": clicking.focus_text,
    "focus-text-2": clicking.focus_nth_text,
    "form-sequence-2": forms.radio_and_number,
    "form-sequence-3": forms.list_and_button,
    "login-user": forms.login_user,
    "multi-layouts": forms.search_movies,
    "multi-orderings": forms.search_movies,
    "navigate-tree": clicking.navigate_tree,
    "search-engine": forms.use_search_engine,
    "simple-arithmetic": forms.solve_arithmetic,
    "unicode-test": clicking.click_button,
    "use-autocomplete": forms.complete_item,
    "use-autocomplete-nodelay": forms.complete_item,
}


class OracleAgent:
    """``OracleAgent()`` plays every family listed in ``ORACLES``. ``profile`` says how its decisions are written down,
    so that its trajectories are demonstrations for a model of that profile."""

    def __init__(self, profile: str = "pocket") -> None:
        self._profile = get_profile(profile)

    @property
    def name(self) -> str:
        return "oracle"

    @property
    def policy_version(self) -> str:
        return "oracle"

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The expert's next move; a noop that says why where the expert is lost. UnknownNameError if there is none."""
        if task.name not in ORACLES:
            raise UnknownNameError("oracle", task.name, ORACLES)
        try:
            thought, action = ORACLES[task.name](Page(observation, history))
        except Lost as error:
            thought, action = f"lost: {error}", Noop()
        return Move(
            action=action,
            thought=thought,
            completion=render_completion(self._profile, thought, action),
            messages=render(self._profile, observation, history),
        )
