"""Which actions are asked about: a labelled list of elements of example pages, with 0 that slip through."""

from __future__ import annotations

import pytest

from dpo_driver.core.actions import parse_action
from dpo_driver.rollout.consent import Facts, reasons

HERE = "https://shop.example/page"


def button(name: str, **more: object) -> Facts:
    return Facts(**{"tag": "button", "type": "button", "names": (name,), "document": HERE, "clickable": True, **more})  # type: ignore[arg-type]


def link(name: str, href: str = "/x", **more: object) -> Facts:
    target = href if "://" in href else f"https://shop.example{href}"
    return Facts(**{"tag": "a", "names": (name,), "link": target, "document": HERE, "clickable": True, **more})  # type: ignore[arg-type]


def submit(name: str, method: str = "post", action: str = HERE) -> Facts:
    return button(name, type="submit", in_form=True, submits=True, method=method, action=action, form_words=(name,))


def field(form: bool = True, method: str = "post", words: tuple[str, ...] = (), **more: object) -> Facts:
    shape = {"tag": "input", "type": "text", "editable": True, "in_form": form, "method": method if form else "",
             "action": HERE if form else "", "form_words": words, "document": HERE}  # fmt: skip
    return Facts(**{**shape, **more})  # type: ignore[arg-type]


CLICK, ENTER = 'click("1")', 'press("1", "Enter")'
IRREVERSIBLE: list[tuple[str, Facts | None]] = [
    *((CLICK, button(name)) for name in (
        "Delete", "Delete account", "Remove from list", "Erase disk", "Empty trash", "Discard draft", "Buy now",
        "Pay $12.00", "Place order", "Place your order", "Checkout", "Order now", "Donate", "Subscribe", "Book now",
        "Start free trial", "Send", "Submit", "Post", "Reply all", "Invite", "Share", "Apply", "Confirm", "Approve",
        "I agree", "Accept all", "Sign document", "Sign", "OK", "Yes", "Transfer", "Withdraw funds", "Sell all",
        "Publish", "Go live", "Deploy", "Unsubscribe", "Cancel my subscription", "Cancel order", "Deactivate",
        "Close account", "Revoke access", "Log out", "Save", "Save changes", "Create account", "Install", "Upload",
        "Löschen", "Jetzt kaufen", "Zahlungspflichtig bestellen", "Absenden", "Bestätigen", "Kündigen", "Überweisen",
        "Veröffentlichen", "Supprimer", "Acheter", "Envoyer", "Confirmer", "Se désabonner", "Eliminar", "Comprar",
        "Enviar", "Aceptar", "Elimina", "Acquista", "Invia", "Conferma", "Verwijderen", "Kopen", "Verzenden", "Usuń",
        "Wyślij", "Удалить", "Купить", "Отправить", "删除", "购买", "发送", "提交订单", "支付", "确认", "削除",
        "購入する", "送信", "삭제", "구매하기", "보내기", "🗑", "×", "✓", "▶")),
    *((CLICK, submit(name)) for name in ("Go", "Next", "Log in", "Continue", "Weiter", "继续")),
    (CLICK, submit("Search", "get", "https://other.example/s")),
    (CLICK, submit("Buy", "get")),
    (CLICK, submit("Go", "get", "https://shop.example/cart/delete?id=3")),
    (CLICK, submit("Go", "put")),
    (CLICK, button("", names=())),
    (CLICK, button("", names=(), hints=("btn btn-danger js-deleteItem",))),
    (CLICK, button("…", hints=("deleteItem",))),
    (CLICK, button("More", hints=("removeRow(3)",))),
    (CLICK, Facts(tag="div", role="menuitem", names=("Delete message",), document=HERE, clickable=True)),
    (CLICK, Facts(tag="span", names=("Buy",), document=HERE, clickable=True)),
    (CLICK, Facts(tag="input", type="checkbox", names=("I accept the terms",), document=HERE)),
    (CLICK, Facts(tag="input", type="image", names=("Go",), submits=True, in_form=True, method="post", action=HERE,
                  document=HERE)),
    (CLICK, Facts(tag="input", type="file", names=("Picture",), document=HERE)),
    (CLICK, Facts(tag="iframe", hidden=True, document=HERE)),
    (CLICK, link("Remove", "/item/3")), (CLICK, link("here", "/item/3/delete")),
    (CLICK, link("Confirm e-mail", "/c")), (CLICK, link("here", "/newsletter?unsubscribe=1")),
    (CLICK, link("Partner", "https://evil.test/")), (CLICK, link("Port", "https://shop.example:8443/")),
    ('dblclick("1")', button("Delete")), ("mouse_click(3, 4)", button("Pay")), ("mouse_down(3, 4)", button("Pay")),
    ('drag_and_drop("1", "2")', Facts(tag="div", names=("Trash",), document=HERE)),
    ("mouse_drag_and_drop(1, 2, 3, 4)", Facts(tag="div", hints=("recycle-bin",), document=HERE)),
    (ENTER, field()), (ENTER, field(words=("Send",))), (ENTER, field(method="get", words=("Buy",))),
    (ENTER, field(form=False)), (ENTER, field(tag="textarea", multiline=True)), (ENTER, button("Delete")),
    ('press("1", "Control+Enter")', field(tag="textarea", multiline=True)), ('press("1", " ")', button("Delete")),
    ('keyboard_press("Enter")', field()), ('keyboard_press("Enter")', None),
    ('keyboard_press("Delete")', Facts(tag="body", document=HERE)),
    ('keyboard_press("#")', Facts(tag="body", document=HERE)),
    ('keyboard_press("Control+s")', field()),
    ('fill("1", "hello\\n")', field()), ('type("1", "hello\\n")', field(tag="textarea", multiline=True)),
    ('keyboard_type("yes\\n")', field(form=False)), ('keyboard_type("#")', Facts(tag="body", document=HERE)),
    ('fill("1", "x")', Facts(tag="iframe", hidden=True, document=HERE)),
    ('select_option("1", "Delete everything")', Facts(tag="select", document=HERE)),
    ('select_option("1", "Blue")', Facts(tag="select", hints=("this.form.submit()",), document=HERE)),
    ('upload_file("1", "a.txt")', Facts(tag="input", type="file", document=HERE)),
    ('goto("https://evil.test/")', Facts(tag="body", document=HERE)),
    ('goto("http://shop.example/")', Facts(tag="body", document=HERE)),
    ('goto("https://shop.example/account/delete")', Facts(tag="body", document=HERE)),
    ('js_eval("1")', Facts(tag="body", document=HERE)),
]  # fmt: skip
HARMLESS: list[tuple[str, Facts | None]] = [
    *((CLICK, button(name)) for name in ("Next", "Back", "Menu", "Show more", "Filter", "Details", "3", "Close",
                                         "Sort")),
    *((CLICK, link(name)) for name in ("Home", "Products", "Your orders", "Sign in", "Sign up later? Read why", "Help",
                                       "Red shoes", "2", "About us")),
    (CLICK, submit("Search", "get")), (CLICK, submit("Filter", "get")), (CLICK, submit("Close", "dialog")),
    (CLICK, field()), (CLICK, Facts(tag="select", document=HERE)),
    (CLICK, Facts(tag="p", names=("Text",), document=HERE)),
    (CLICK, Facts(tag="input", type="checkbox", names=("Milk",), document=HERE)),
    (CLICK, Facts(tag="input", type="radio", names=("Blue",), document=HERE)),
    (ENTER, field(method="get", words=("Search",))), (ENTER, link("Home")), ('press("1", "Tab")', field()),
    ('press("1", "Backspace")', field()), ('press("1", "a")', field()), ('press("1", "Control+a")', field()),
    ('press("1", "ArrowDown")', button("Menu")), ('press("1", " ")', button("Menu")),
    ('fill("1", "delete me")', field()), ('type("1", "buy milk")', field()), ('clear("1")', field()),
    ('select_option("1", "Blue")', Facts(tag="select", document=HERE)), ('hover("1")', button("Delete")),
    ("scroll(0, 100)", None), ("go_back()", None), ("noop()", None), ('send_msg_to_user("deleted")', None),
    ('report_infeasible("no such order")', None),
    ('goto("https://shop.example/list")', Facts(tag="body", document=HERE)),
    ('drag_and_drop("1", "2")', Facts(tag="li", names=("Milk",), document=HERE)),
]  # fmt: skip


def test_confusion_table_has_no_false_negative() -> None:
    missed = [(call, facts) for call, facts in IRREVERSIBLE if not reasons(parse_action(call), facts)]
    asked = [(call, facts, reasons(parse_action(call), facts)) for call, facts in HARMLESS
             if reasons(parse_action(call), facts)]  # fmt: skip
    assert missed == []
    # The table that docs/act.md shows. A false positive is a question too many.
    assert len(IRREVERSIBLE) >= 140 and len(HARMLESS) >= 45
    assert [facts and facts.label for _, facts, _ in asked] == ['a "Sign up later? Read why"']


def test_a_secret_goes_into_a_password_field_unasked_and_into_no_other() -> None:
    typed = parse_action('fill("1", "[secret:shop]")')
    assert reasons(typed, field(type="password", secret=True), types_secret=True) == ()
    assert reasons(typed, field(), types_secret=True) == ("a secret goes into a field that shows it",)


@pytest.mark.parametrize("told", [{"tag": "a", "names": ["x"], "unknown": 1}, {}])
def test_facts_are_read_from_what_the_page_script_says(told: dict[str, object]) -> None:
    assert Facts.read(told).names == tuple(told.get("names", ()))  # type: ignore[arg-type]
