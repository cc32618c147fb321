"""The ceiling: a scripted expert for each task family. Gives demonstrations for SFT and the score to compare with.

Experts are stateless functions of what a model sees too, and act through the same actions; their thought is the target
element's label. Must not import environments or policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from dpo_driver.agents.experts import (
    booking,
    calendar,
    clicking,
    dragging,
    forms,
    games,
    mail,
    menus,
    numbers,
    points,
    shapes,
    sliders,
    social,
    synonyms,
    tables,
    texts,
)
from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.agents.prompt import get_profile, render, render_completion
from dpo_driver.core.actions import Noop
from dpo_driver.core.errors import UnknownNameError
from dpo_driver.core.protocols import Move
from dpo_driver.core.records import Observation, Step, Task

Expert = Callable[[Page], Decision]

ORACLES: dict[str, Expert] = {
    "ascending-numbers": games.click_ascending,
    "bisect-angle": points.bisect_angle,
    "book-flight": booking.book_flight,
    "book-flight-nodelay": booking.book_flight,
    "button-delay": numbers.wait_between_buttons,
    "buy-ticket": booking.buy_ticket,
    "chase-circle": games.chase_circle,
    "choose-date": booking.choose_date,
    "choose-date-easy": booking.choose_date,
    "choose-date-medium": booking.choose_date,
    "choose-date-nodelay": booking.choose_date,
    "choose-list": forms.choose_from_list,
    "circle-center": points.circle_center,
    "click-button": clicking.click_button,
    "click-button-sequence": clicking.click_button_sequence,
    "click-checkboxes": forms.tick_checkboxes,
    "click-checkboxes-large": forms.tick_checkboxes,
    "click-checkboxes-soft": synonyms.tick_similar,
    "click-checkboxes-transfer": forms.tick_checkboxes,
    "click-collapsible": clicking.expand_and_submit,
    "click-collapsible-2": clicking.find_link_behind_tabs,
    "click-collapsible-2-nodelay": clicking.find_link_behind_tabs,
    "click-collapsible-nodelay": clicking.expand_and_submit,
    "click-color": shapes.click_color,
    "click-dialog": clicking.close_dialog,
    "click-dialog-2": clicking.click_dialog_button,
    "click-link": clicking.click_link,
    "click-menu": menus.select_in_menu,
    "click-menu-2": menus.select_behind_button,
    "click-option": forms.choose_radio,
    "click-pie": shapes.open_pie,
    "click-pie-nodelay": shapes.open_pie,
    "click-scroll-list": forms.choose_from_scroll_list,
    "click-shades": shapes.click_shades,
    "click-shape": shapes.click_shape,
    "click-tab": clicking.click_tab,
    "click-tab-2": clicking.find_link_behind_tabs,
    "click-tab-2-easy": clicking.find_link_behind_tabs,
    "click-tab-2-hard": clicking.find_link_behind_tabs,
    "click-tab-2-medium": clicking.find_link_behind_tabs,
    "click-test": clicking.click_only_button,
    "click-test-2": clicking.click_numbered_button,
    "click-test-transfer": clicking.click_numbered_button,
    "click-widget": clicking.click_widget,
    "copy-paste": texts.copy_text,
    "copy-paste-2": texts.copy_text,
    "count-shape": shapes.count_shapes,
    "count-sides": shapes.count_sides,
    "daily-calendar": calendar.create_event,
    "drag-box": dragging.drag_into_box,
    "drag-circle": dragging.drag_shape_aside,
    "drag-cube": dragging.turn_cube,
    "drag-items": dragging.drag_item_in_list,
    "drag-items-grid": dragging.drag_item_in_grid,
    "drag-shapes": dragging.drag_shapes_into_box,
    "drag-shapes-2": dragging.sort_shapes_into_boxes,
    "drag-single-shape": dragging.drag_shape_aside,
    "drag-sort-numbers": dragging.sort_numbers,
    "draw-circle": points.draw_circle,
    "draw-line": points.draw_line,
    "email-inbox": mail.handle_mail,
    "email-inbox-delete": mail.handle_mail,
    "email-inbox-forward": mail.handle_mail,
    "email-inbox-forward-nl": mail.handle_mail,
    "email-inbox-forward-nl-turk": mail.handle_mail,
    "email-inbox-important": mail.handle_mail,
    "email-inbox-nl-turk": mail.handle_mail,
    "email-inbox-noscroll": mail.handle_mail,
    "email-inbox-reply": mail.handle_mail,
    "email-inbox-star-reply": mail.handle_mail,
    "enter-date": forms.enter_date,
    "enter-password": forms.enter_password,
    "enter-text": forms.enter_text,
    "enter-text-2": forms.enter_text_in_case,
    "enter-text-dynamic": forms.enter_text,
    "enter-time": forms.enter_time,
    "find-greatest": games.pick_greatest,
    "find-midpoint": points.find_midpoint,
    "find-word": texts.find_word,
    "focus-text": clicking.focus_text,
    "focus-text-2": clicking.focus_nth_text,
    "form-sequence": numbers.slider_and_checkbox,
    "form-sequence-2": forms.radio_and_number,
    "form-sequence-3": forms.list_and_button,
    "generate-number": numbers.generate_number,
    "grid-coordinate": shapes.click_coordinate,
    "guess-number": numbers.guess_number,
    "highlight-text": dragging.highlight_text,
    "highlight-text-2": dragging.highlight_text,
    "hot-cold": points.find_hot_spot,
    "identify-shape": shapes.identify_shape,
    "login-user": forms.login_user,
    "login-user-popup": forms.login_past_popup,
    "moving-items": games.click_moving,
    "multi-layouts": forms.search_movies,
    "multi-orderings": forms.search_movies,
    "navigate-tree": clicking.navigate_tree,
    "number-checkboxes": shapes.tick_like_picture,
    "odd-or-even": games.mark_odd_or_even,
    "order-food": booking.order_food,
    "phone-book": tables.find_contact,
    "read-table": tables.read_table,
    "read-table-2": tables.read_table_into_form,
    "resize-textarea": dragging.resize_textarea,
    "right-angle": points.right_angle,
    "scroll-text": texts.find_last_word,
    "scroll-text-2": sliders.scroll_to_end,
    "search-engine": forms.use_search_engine,
    "sign-agreement": texts.sign_agreement,
    "simon-says": games.repeat_blinks,
    "simple-algebra": numbers.solve_equation,
    "simple-arithmetic": forms.solve_arithmetic,
    "social-media": social.use_post,
    "social-media-all": social.use_posts,
    "social-media-some": social.use_posts,
    "stock-market": numbers.buy_stock,
    "terminal": texts.use_terminal,
    "text-editor": texts.style_text,
    "text-transform": texts.read_bent_letters,
    "tic-tac-toe": games.win_tic_tac_toe,
    "unicode-test": clicking.click_button,
    "use-autocomplete": forms.complete_item,
    "use-autocomplete-nodelay": forms.complete_item,
    "use-colorwheel": sliders.pick_color,
    "use-colorwheel-2": sliders.pick_color,
    "use-slider": sliders.use_slider,
    "use-slider-2": sliders.use_sliders,
    "use-spinner": numbers.set_spinner,
    "visual-addition": shapes.add_blocks,
}

# Families that no play can always win, and why. Their experts are judged by what can be reached.
SHORT_OF_FULL = {
    "circle-center": "a click falls on a whole pixel, the page measures from half a pixel beside the centre",
    "find-midpoint": "a click falls on a whole pixel; three in four midpoints lie between two",
    "tic-tac-toe": "the other player moves by chance and can hold a draw",
}


class OracleAgent:
    """``OracleAgent()`` plays every family listed in ``ORACLES``. ``profile`` says how its decisions are written down,
    so that its trajectories are demonstrations for a model of that profile."""

    def __init__(self, profile: str = "pocket", experts: Mapping[str, Expert] = ORACLES) -> None:
        self._profile = get_profile(profile)
        self._experts = experts

    @property
    def name(self) -> str:
        return "oracle"

    @property
    def families(self) -> Set[str]:
        """What it can play. A table may know more names than it lists: ask whether a name is in it."""
        return self._experts.keys()

    @property
    def policy_version(self) -> str:
        return "oracle"

    @property
    def context_policy(self) -> str:
        return self._profile.id

    async def act(self, task: Task, observation: Observation, history: Sequence[Step]) -> Move:
        """The expert's next move; a noop that says why where the expert is lost. UnknownNameError if there is none."""
        if task.name not in self._experts:
            raise UnknownNameError("oracle", task.name, self._experts)
        try:
            thought, action = self._experts[task.name](Page(observation, history))
        except Lost as error:  # the page does not show what was looked for
            thought, action = f"lost: {error}", Noop()
        return Move(
            action=action,
            thought=thought if self._profile.thought else "",
            completion=render_completion(self._profile, thought, action),
            messages=render(self._profile, observation, history),
        )
