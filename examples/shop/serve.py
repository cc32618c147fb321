"""A small shop to train on: orders, a trade application, settings, cart and checkout, returns.

    python examples/shop/serve.py --port 8765

Binds loopback only. Everything a visitor does is kept in memory under the session cookie; ``POST /reset {"seed": 7}``
begins a new visit whose content follows from the seed, and ``GET /api/state`` says what the shop knows about a visit.
"""

from __future__ import annotations

import argparse
import contextlib
import email.parser
import email.policy
import json
import mimetypes
from collections.abc import Callable
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import content
import forms
import jinja2
from visits import Visit, Visits

HERE = Path(__file__).resolve().parent
COOKIE = "shop"
ORDERS_PER_PAGE = 6

pages = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "pages"), autoescape=True, trim_blocks=True)
pages.filters["money"] = lambda pence: f"£{pence / 100:,.2f}"
visits = Visits()


class Answer:
    """What a page function gives back: HTML, JSON, or the place to go to."""

    def __init__(self, body: bytes, kind: str, status: int = 200, location: str | None = None) -> None:
        self.body, self.kind, self.status, self.location = body, kind, status, location


def page(visit: Visit, name: str, status: int = 200, **shown: Any) -> Answer:
    html = pages.get_template(f"{name}.html").render(visit=visit, here=name, **shown)
    return Answer(html.encode(), "text/html; charset=utf-8", status)


def data(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), "application/json", status)


def go(to: str) -> Answer:
    return Answer(b"", "text/plain", 303, to)


# -- pages: each is given the visit and the fields of its query or form ---------------------------------------------


def home(visit: Visit, _asked: dict[str, Any]) -> Answer:
    return page(visit, "home", products=content.PRODUCTS)


def orders(visit: Visit, asked: dict[str, Any]) -> Answer:
    words, status = asked.get("q", "").strip(), asked.get("status", "")
    found = [
        order
        for order in visit.orders
        if (not status or order.status == status)
        and (not words or words.casefold() in f"{order.number} {order.customer}".casefold())
    ]
    last = max(1, -(-len(found) // ORDERS_PER_PAGE))
    number = min(max(int(asked.get("page", "1")) if asked.get("page", "1").isdigit() else 1, 1), last)
    shown = found[(number - 1) * ORDERS_PER_PAGE : number * ORDERS_PER_PAGE]
    return page(visit, "orders", orders=shown, found=len(found), number=number, last=last, q=words, chosen=status,
                statuses=content.STATUSES)  # fmt: skip


def order(visit: Visit, asked: dict[str, Any]) -> Answer:
    wanted = next((order for order in visit.orders if order.number == asked["number"]), None)
    return page(visit, "order", order=wanted) if wanted else page(visit, "missing", 404)


def trade(visit: Visit, asked: dict[str, Any]) -> Answer:
    step = forms.TRADE[asked["number"]]
    if int(asked["number"]) > visit.trade_step:
        return go(f"/trade/{visit.trade_step}")
    return page(visit, "trade", number=int(asked["number"]), step=step, values=visit.trade, errors={})


def trade_sent(visit: Visit, asked: dict[str, Any]) -> Answer:
    number = int(asked["number"])
    step = forms.TRADE[asked["number"]]
    given = {field.name: asked.get(field.name, "").strip() for field in step.fields}
    errors = forms.errors_of(step.fields, given)
    if errors:
        return page(visit, "trade", 422, number=number, step=step, values={**visit.trade, **given}, errors=errors)
    visit.trade.update(given)
    visit.trade_step = max(visit.trade_step, number + 1)
    if number < len(forms.TRADE):
        return go(f"/trade/{number + 1}")
    visit.trade_sent = True
    return go("/trade/done")


def trade_done(visit: Visit, _asked: dict[str, Any]) -> Answer:
    if not visit.trade_sent:
        return go("/trade/1")
    return page(visit, "done", title="Application sent", text=f"Thank you. We will write to {visit.trade['email']}.")


def settings(visit: Visit, _asked: dict[str, Any]) -> Answer:
    return page(visit, "settings", frequencies=content.FREQUENCIES)


def settings_saved(visit: Visit, asked: dict[str, Any]) -> Answer:
    channel = visit.settings.get(str(asked.get("channel")))
    if channel is None or asked.get("frequency") not in content.FREQUENCIES:
        return data({"error": "no such setting"}, 422)
    channel.update(frequency=asked["frequency"], email=bool(asked.get("email")), phone=bool(asked.get("phone")))
    visit.saved_settings += 1
    return data(channel)


def cart(visit: Visit, _asked: dict[str, Any]) -> Answer:
    return page(visit, "cart")


def cart_add(visit: Visit, asked: dict[str, Any]) -> Answer:
    product = content.PRODUCT_BY_ID.get(asked.get("product", ""))
    if product is not None:
        visit.cart[product.id] = min(visit.cart.get(product.id, 0) + 1, 99)
    return go("/cart")


def cart_update(visit: Visit, asked: dict[str, Any]) -> Answer:
    for product in list(visit.cart):
        written = asked.get(f"quantity-{product}", "")
        if written.isdigit():
            visit.cart[product] = min(int(written), 99)
        if asked.get("remove") == product or not visit.cart[product]:
            del visit.cart[product]
    return go("/cart")


def checkout(visit: Visit, _asked: dict[str, Any]) -> Answer:
    if not visit.cart:
        return go("/cart")
    return page(visit, "checkout", step=forms.CHECKOUT, values={}, errors={})


def checkout_sent(visit: Visit, asked: dict[str, Any]) -> Answer:
    given = {field.name: asked.get(field.name, "").strip() for field in forms.CHECKOUT.fields}
    errors = forms.errors_of(forms.CHECKOUT.fields, given)
    if errors:
        return page(visit, "checkout", 422, step=forms.CHECKOUT, values=given, errors=errors)
    visit.placed = {"items": dict(visit.cart), **given}
    visit.cart.clear()
    return go("/checkout/done")


def checkout_done(visit: Visit, _asked: dict[str, Any]) -> Answer:
    if visit.placed is None:
        return go("/cart")
    return page(visit, "done", title="Order placed", text=f"Thank you, {visit.placed['name']}. It is on its way.")


def returns(visit: Visit, _asked: dict[str, Any]) -> Answer:
    return page(visit, "returns", step=forms.RETURN, values={}, errors={})


def returns_sent(visit: Visit, asked: dict[str, Any]) -> Answer:
    given = {field.name: asked.get(field.name, "") for field in forms.RETURN.fields}
    errors = forms.errors_of(forms.RETURN.fields, given)
    if errors:
        return page(visit, "returns", 422, step=forms.RETURN, values=given, errors=errors)
    upload = given["proof"]
    visit.claim = {"order": given["order"], "reason": given["reason"], "file": upload["name"], "bytes": upload["bytes"]}
    return go("/returns/done")


def returns_done(visit: Visit, _asked: dict[str, Any]) -> Answer:
    if visit.claim is None:
        return go("/returns")
    return page(visit, "done", title="Claim received", text=f"We have {visit.claim['file']} and will be in touch.")


def state(visit: Visit, _asked: dict[str, Any]) -> Answer:
    return data(visit.state())


def health(_visit: Visit, _asked: dict[str, Any]) -> Answer:
    return data({"ok": True})


PAGES: dict[tuple[str, str], Callable[[Visit, dict[str, Any]], Answer]] = {
    ("GET", "/"): home,
    ("GET", "/orders"): orders,
    ("GET", "/orders/{number}"): order,
    ("GET", "/trade/{number}"): trade,
    ("POST", "/trade/{number}"): trade_sent,
    ("GET", "/trade/done"): trade_done,
    ("GET", "/settings"): settings,
    ("POST", "/api/settings"): settings_saved,
    ("GET", "/cart"): cart,
    ("POST", "/cart/add"): cart_add,
    ("POST", "/cart/update"): cart_update,
    ("GET", "/checkout"): checkout,
    ("POST", "/checkout"): checkout_sent,
    ("GET", "/checkout/done"): checkout_done,
    ("GET", "/returns"): returns,
    ("POST", "/returns"): returns_sent,
    ("GET", "/returns/done"): returns_done,
    ("GET", "/api/state"): state,
    ("GET", "/health"): health,
}


class Requests(BaseHTTPRequestHandler):
    """One request: find the visit by its cookie, the page by its address, and answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/static/"):
            self._send_file(HERE / url.path.lstrip("/"))
            return
        self._run("GET", url.path, {key: values[-1] for key, values in parse_qs(url.query).items()})

    def do_POST(self) -> None:
        fields = self._fields()
        if urlsplit(self.path).path == "/reset":
            token, visit = visits.begin(int(fields.get("seed", 0)))
            self._send(data({"find": visit.find}), token)
            return
        self._run("POST", urlsplit(self.path).path, fields)

    def _run(self, method: str, path: str, asked: dict[str, Any]) -> None:
        cookie = SimpleCookie(self.headers.get("Cookie", ""))
        token, visit, is_new = visits.find(cookie[COOKIE].value if COOKIE in cookie else None)
        function = PAGES.get((method, path))
        if function is None:
            before, _, last = path.rpartition("/")
            function = PAGES.get((method, f"{before}/{{number}}"))
            asked = {**asked, "number": last}
            if before == "/trade" and last not in forms.TRADE:
                function = None
        answer = function(visit, asked) if function else page(visit, "missing", 404)
        self._send(answer, token if is_new else None)

    def _fields(self) -> dict[str, Any]:
        """The fields of a form, of JSON, or of a form with files."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get_content_type()
        if kind == "application/json":
            sent = json.loads(body or b"{}")
            return sent if isinstance(sent, dict) else {}
        if kind != "multipart/form-data":
            return {key: values[-1] for key, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        fields: dict[str, Any] = {}
        for part in message.iter_parts():
            content_ = part.get_payload(decode=True) or b""
            name, file = part.get_param("name", header="content-disposition"), part.get_filename()
            fields[str(name)] = {"name": file, "bytes": len(content_)} if file is not None else content_.decode()
        return fields

    def _send_file(self, path: Path) -> None:
        if path.resolve().is_relative_to(HERE / "static") and path.is_file():
            self._send(Answer(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "text/plain"))
        else:
            self._send(Answer(b"not found", "text/plain", 404))

    def _send(self, answer: Answer, token: str | None = None) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "max-age=600" if self.path.startswith("/static/") else "no-store")
        if answer.location:
            self.send_header("Location", answer.location)
        if token:
            self.send_header("Set-Cookie", f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *_arguments: object) -> None:
        """Silence: requests are not news."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the example shop on this machine.")
    parser.add_argument("--port", type=int, default=8765)
    port = parser.parse_args().port
    server = ThreadingHTTPServer(("127.0.0.1", port), Requests)
    server.daemon_threads = True
    print(f"The shop is open: http://127.0.0.1:{server.server_port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(0.05)


if __name__ == "__main__":
    main()
