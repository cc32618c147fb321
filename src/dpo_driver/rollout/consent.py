"""Which actions on a live page a person is asked about first, by rules.

    why = reasons(action, facts, allows)   # () means: just do it

The rules know an action, what it touches (:class:`Facts`, read by consent.js in the isolated world) and nothing of what
the page says about itself beyond the names of its controls. They are wide on purpose: to be asked once too often is
cheap, what was sent or bought is not. A page whose script acts behind a harmless name is beyond them; rollout/live.py
also stops forms that a script sends. Called by rollout/live.py. Must not import environments or policies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from dpo_driver.browser.egress import parse_url
from dpo_driver.core.actions import Action

FACTS_SCRIPT = files(__package__).joinpath("consent.js").read_text(encoding="utf-8")
Answer = Literal["yes", "no", "always", "stop"]
# Nothing leaves the page by these.
HARMLESS = frozenset(
    {"noop", "hover", "scroll", "focus", "mouse_move", "go_back", "go_forward", "new_tab", "tab_focus", "clear",
     "send_msg_to_user", "report_infeasible"}
)  # fmt: skip
_CLICKS = frozenset({"click", "dblclick", "mouse_click", "mouse_dblclick", "mouse_down", "mouse_up", "drag_and_drop",
                     "mouse_drag_and_drop"})  # fmt: skip
_KEYS = frozenset({"press", "keyboard_press", "keyboard_down"})
_TYPES = {"fill": "value", "type": "text", "keyboard_type": "text", "keyboard_insert_text": "text"}
_MOVES = frozenset(
    {"Tab", "Escape", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown", "Shift",
     "Control", "Alt", "Meta"}
)  # fmt: skip

# What a control's name says it does. Beginnings of words, so that "deleting" and "Bestellung" count as well.
_VERBS = {
    "delete": r"delet|remov|eras|\bdiscard|destroy|\bwipe|\bpurge|\btrash|\bempty\b|\bclear (?:all|history|data)"
              r"|\breset\b"
              r"|lösch|loesch|entfern|verwerf|supprim|effac|retirer|elimin|borrar|cancell|rimuov|excluir|apagar"
              r"|verwijder"
              r"|usuń|usun|удал|删除|刪除|移除|清空|削除|삭제",
    "pay": r"\bpay(?!load)|\bbuy|purchas|\bcheck ?out|\border now"
           r"|(?:place|submit|complete|confirm|send|review)\b.{0,20}\border"
           r"|\border\b$|\bdonat|\bbid\b|\bbook(?: now|ing)?\b|\breserv|\bsubscrib|\bupgrade|\brenew|\btip\b"
           r"|start.{0,12}trial"
           r"|kaufen|bezahl|zahlungspflichtig|bestell|buchen|spenden|abonnier|achet|payer|paiement|commander|réserv"
           r"|compra|pagar|reserva|pedido|acquist|\bpaga|ordina|prenota|kopen|betaal|bestel|kup\b|kupuj|zapłać|zamów"
           r"|купить|оплат|заказ|购买|購買|支付|付款|下单|下單|结算|結算|購入|注文|支払|구매|결제|주문",
    "send": r"\bsend|\bsubmit|\bpost(?:ing)?\b|\breply|\bforward\b|\binvit|\bshare\b|\btweet|\bcomment\b|\bapply\b"
            r"|\breport\b"
            r"|\bmessage\b|\bupload|\bcall\b|\bretweet|\bfollow\b|\bunfollow|\blike\b|\bvote|\brate\b|senden"
            r"|absenden|schick|antwort"
            r"|einreich|bewerb|teilen|hochladen|envoy|répond|soumett|partag|postuler|enviar|responder|compartir"
            r"|invia|rispond"
            r"|condivid|verzend|verstuur|wyślij|отправ|发送|發送|提交|回复|回覆|分享|送信|投稿|返信|보내|전송|제출",
    "confirm": r"\bconfirm|\bapprov|\baccept|\bagree|\bconsent|\bsign(?! ?(?:in|up|al))|\bfinali[sz]|\bfinish\b"
               r"|\bcomplete\b"
               r"|\bauthori[sz]|\ballow\b|\bgrant|\bproceed|\bdone\b|\byes\b|\bok(?:ay)?\b|\bi understand|\bverify\b"
               r"|bestätig|akzept|zustimm|unterschreib|unterzeich|genehmig|erlaub|\bja\b|confirm|accept|signer"
               r"|autoris|\boui\b"
               r"|acepta|firmar|aprob|\bsí\b|conferm|accett|firma\b|bevestig|akkoord|potwierd|zaakcept|подтверд"
               r"|соглас|确认|確認"
               r"|同意|批准|签署|簽署|承認|署名|확인|동의|승인",
    "transfer": r"transfer|\bwithdraw|\bdeposit|\btrade\b|\bsell\b|\bredeem|\bmove to\b|\bmerge|\bwire\b"
            r"|\bexchange\b|überweis"
                r"|abheb|verkauf|virement|vendre|retirar|vender|trasferi|bonific|vendi\b|overmak|przelew|sprzeda"
                r"|перевести|перевод"
                r"|продать|转账|轉帳|转让|提现|卖出|送金|振込|売却|이체|송금|판매",
    "publish": r"publish|\bgo live|\bdeploy|\brelease\b|\blaunch|\bmake public|\bbroadcast|veröffentlich|publi[ec]"
               r"|pubblic"
               r"|publicer|opublikuj|опубликов|发布|發布|公开|公開|게시",
    "leave": r"unsubscrib|\bcancel.{0,30}\b(?:order|account|plan|member|subscri|booking|reserv|appointment)"
             r"|deactivat|\bclose.{0,12}account"
             r"|\bterminat|\brevok|\bdisabl|\bblock\b|\bban\b|\bkick\b|\barchiv|\blog ?out|\bsign ?out|\bopt ?out"
             r"|\bquit\b|\bend\b.{0,12}"
             r"(?:call|meeting|session)|abmeld|abbestell|kündig|stornier|désabonn|résili|déconnex|darse de baja"
             r"|cancelar|disdi|disiscri"
             r"|opzegg|uitschrijv|wypisz|anuluj|отписат|отменить|выйти|退订|退訂|取消订|注销|註銷|退会|解約"
             r"|구독 취소|탈퇴",
    "save": r"\bsave\b|\bupdate\b|\bregister|\bcreate account|\bsign ?up|\bjoin\b|\benrol|\bchange password"
            r"|\binstall\b|\brestor"
            r"|\boverwrit|\breplace\b|\brestart\b|\bshut ?down|\breboot|\brun\b|\bexecut"
            r"|\bmark\b.{0,20}\b(?:paid|done|complete)"
            r"|speicher|registrier|beitret|enregistr|inscri|guardar|registrar|salva|opslaan|zapisz|сохран|зарегистр"
            r"|保存|注册|註冊"
            r"|登録|저장|가입",
}  # fmt: skip
_SAYS = {why: re.compile(pattern, re.IGNORECASE) for why, pattern in _VERBS.items()}
_SYMBOLS = re.compile(r"[🗑❌✖✕✗✘×✓✔✅💳🛒📤📨✉➤▶]")
_NAMED_IN_CODE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-_./?=&(){};:'\"+]+")
_TRASH = re.compile(r"\b(?:trash|bin|recycle|papierkorb|corbeille|papelera|cestino|prullenbak|kosz|корзин\w*)\b"
                    r"|回收站|ゴミ箱|휴지통", re.IGNORECASE)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What is touched. ``names``: what it is called to people; ``hints``: ids, classes, handlers. ``form_words``: names
    of its form's buttons. ``hidden``: it lies in a frame of another origin, so nothing is known of it."""

    tag: str = ""
    type: str = ""
    role: str = ""
    names: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    link: str = ""
    in_form: bool = False
    submits: bool = False
    editable: bool = False
    multiline: bool = False
    method: str = ""
    action: str = ""
    form_words: tuple[str, ...] = ()
    hidden: bool = False
    clickable: bool = False
    secret: bool = False
    document: str = ""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Facts:
        """The script's answer as a record."""
        known = {each.name for each in fields(cls)}
        read: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in told.items() if key in known
        }
        return cls(**read)

    @property
    def label(self) -> str:
        """What a person is shown: ``button "Delete"``."""
        what = self.role or (self.type if self.tag == "input" and self.type else self.tag) or "place on the page"
        return f'{what} "{self.names[0][:80]}"' if self.names else what

    @property
    def key(self) -> tuple[str, ...]:
        """The same control on the same page, for "always"."""
        return (self.document.partition("#")[0], self.tag, self.type, self.method, self.action, self.link, *self.names)


def reasons(action: Action, facts: Facts | None, *, types_secret: bool = False) -> tuple[str, ...]:
    """Why a person is to be asked before an action; empty if there is nothing to ask about.

    Args:
        facts: of what the action touches; None when it touches nothing that was found.
        types_secret: the action types a value that the model only knows by its placeholder.
    """
    kind = action.kind
    if kind in HARMLESS:
        return ()
    if kind in ("upload_file", "mouse_upload_file"):
        return ("uploads a file",)
    if kind == "goto":
        return _goto(str(getattr(action, "url", "")), facts)
    if kind in _CLICKS:
        return _click(kind, facts)
    if kind in _KEYS:
        return _key(str(getattr(action, "key", "")), facts)
    if kind in _TYPES:
        return _typing(str(getattr(action, _TYPES[kind])), facts, types_secret)
    if kind == "select_option":
        chosen = said(" ".join(getattr(action, "options", ())))
        sends = facts is not None and any("submit" in hint.lower() for hint in facts.hints)
        return (*(f"the choice says: {why}" for why in chosen), *(("the choice sends a form",) if sends else ()))
    if kind in ("keyboard_up", "tab_close"):
        return ()
    return (f"{kind} is not known to be harmless",)


def said(text: str) -> tuple[str, ...]:
    """What a name says that its control does: some of delete, pay, send, confirm, transfer, publish, leave, save."""
    return tuple(why for why, pattern in _SAYS.items() if pattern.search(text))


def _in_code(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same of ids, classes and addresses, whose words are joined by signs and capitals."""
    return said(" ".join(_NAMED_IN_CODE.sub(" ", unquote(text)) for text in texts))


def _goto(url: str, facts: Facts | None) -> tuple[str, ...]:
    here = facts.document if facts is not None else ""
    why = [f"the address says: {each}" for each in _address(url)]
    if parse_url(here) != parse_url(url):
        why.append("goes to another origin")
    return tuple(why)


def _address(url: str) -> tuple[str, ...]:
    parts = urlsplit(url) if "://" in url else None
    return _in_code((f"{parts.path} {parts.query}",)) if parts is not None else ()


def _click(kind: str, facts: Facts | None) -> tuple[str, ...]:
    if facts is None:
        return ()  # there is nothing at that place, or the executor says that there is no such element
    if facts.hidden:
        return ("lies in a frame of another origin",)
    if facts.tag == "input" and facts.type == "file":
        return ("uploads a file",)
    if facts.editable or (facts.tag == "select" and "drag" not in kind):
        return ()  # takes the focus
    why = [f"its name says: {each}" for each in said(" | ".join(facts.names))]
    if any(_SYMBOLS.search(name) for name in facts.names):
        why.append("its name is a sign")
    if "drag" in kind or kind == "mouse_up":
        why += ["is dropped on a bin"] if any(map(_TRASH.search, (*facts.names, *facts.hints))) else []
    why += [f"its address says: {each}" for each in _address(facts.link)]
    why += _sending(facts) if facts.submits else []
    if facts.link and not facts.link.startswith(("mailto:", "tel:", "javascript:")):
        if parse_url(facts.link) != parse_url(facts.document):
            why.append("leads to another origin")
    elif facts.tag in ("button", "input", "a") or facts.role in ("button", "link", "menuitem") or facts.clickable:
        why += [f"its code says: {each}" for each in _in_code(facts.hints)]
        pictured = not any(re.search(r"\w", name) for name in facts.names)
        if pictured and facts.type not in ("checkbox", "radio", "range", "color") and facts.tag in ("button", "input"):
            why.append("has no name")
    return tuple(dict.fromkeys(why))


def _sending(facts: Facts) -> list[str]:
    """Why a form is not to be sent unasked. Searching is harmless: a GET to the same origin."""
    why = [] if facts.method in ("get", "dialog") else [f"sends a form ({facts.method.upper()})"]
    if facts.method != "dialog" and parse_url(facts.action) != parse_url(facts.document):
        why.append("sends a form to another origin")
    return why + [f"the form's address says: {each}" for each in _address(facts.action)]


def _key(key: str, facts: Facts | None) -> tuple[str, ...]:
    *modifiers, last = key.split("+") if key != "+" else ["+"]
    if last in _MOVES and not set(modifiers) & {"Alt", "Meta"}:
        return ()
    if facts is not None and facts.hidden:
        return ("lies in a frame of another origin",)
    if last in ("Enter", "NumpadEnter", "Return", "\n", "\r"):
        return _enter(facts)
    if facts is not None and facts.editable:
        return ("is a shortcut",) if set(modifiers) & {"Control", "Meta", "Alt"} and last.lower() not in "acvxz" else ()
    if last in (" ", "Space", "Spacebar"):
        return _click("click", facts)
    if facts is not None and facts.tag in ("select",) and len(last) == 1:
        return ()
    return ("is a shortcut outside of a field",)


def _enter(facts: Facts | None) -> tuple[str, ...]:
    if facts is None or facts.tag in ("body", "html", ""):
        return ("presses Enter outside of a field",)
    if not facts.editable and facts.type not in ("checkbox", "radio"):
        return _click("click", facts)
    why = [f"a button of its form says: {each}" for each in said(" | ".join(facts.form_words))]
    if facts.in_form and not facts.multiline:
        why += _sending(facts)
    else:
        why.append("Enter may send what was written")
    return tuple(dict.fromkeys(why))


def _typing(text: str, facts: Facts | None, types_secret: bool) -> tuple[str, ...]:
    why: list[str] = []
    if facts is not None and facts.hidden:
        why.append("lies in a frame of another origin")
    if "\n" in text or "\r" in text:
        why += _enter(facts)
    if types_secret and (facts is None or not facts.secret):
        why.append("a secret goes into a field that shows it")
    if facts is not None and not facts.editable and facts.tag not in ("input", "select", ""):
        why.append("types outside of a field")
    return tuple(why)
