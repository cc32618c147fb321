"""Scripted experts: they see what an agent sees, act through the same actions, and give the demonstrations.

An expert is given a :class:`dpo_driver.agents.experts.page.Page` and gives back what it acts on, in words, and the
action. The words are what a model learns to think before it acts.
"""

from dpo_driver.agents.experts.page import Decision, Lost, Page
from dpo_driver.core.actions import UploadFile


def find_order(page: Page) -> Decision:
    """Open the Shipped order of Ada Abbott."""
    status, customer = page.read(r"Open the (\w+) order of (.*)\.$").groups()
    chosen = page.named("Status", "combobox")
    filled = page.fill_all([(page.named("Search", "textbox"), customer)])
    if filled:
        return filled
    if chosen.value != status:
        return page.select(chosen, status)
    if "status=" not in page.observation.url:
        return page.submit("Apply")
    found = [link for link in page.all("link") if link.name.isdigit()]
    if len(found) != 1:
        raise Lost(f"{len(found)} orders are left")
    return page.click(found[0])


def apply_for_trade(page: Page) -> Decision:
    """Open a trade account for "Selby Gardens", VAT number "GB123456". Contact ..."""
    company, vat, contact, email, phone, terms, day = page.read(
        r'for "(.*)", VAT number "(.*)"\. Contact "(.*)", email "(.*)", phone "(.*)"\. '
        r"Payment terms: (.*)\. Delivery day: (.*)\.$"
    ).groups()
    wanted = {"Company name": company, "VAT number": vat, "Contact name": contact, "Email": email, "Phone": phone}
    fields = [(field, wanted[field.name]) for field in page.all("textbox") if field.name in wanted]
    if fields:
        return page.fill_all(fields) or page.submit("Continue")
    way, chosen = page.named(terms, "radio"), page.named("Delivery day", "combobox")
    if "checked" not in way.states:
        return page.click(way)
    return page.submit("Send application") if chosen.value == day else page.select(chosen, day)


def change_settings(page: Page) -> Decision:
    """Change the settings of "Price drops" to: Weekly, by email only."""
    channel, frequency, ways = page.read(r'settings of "(.*)" to: (.*), (by .*)\.$').groups()
    if page.maybe("Save", "button") is None:
        return page.submit(f"Change {channel}")
    often = page.named("How often", "combobox")
    if often.value != frequency:
        return page.select(often, frequency)
    for name in ("By email", "By phone"):
        box = page.named(name, "checkbox")
        if ("checked" in box.states) != (name.lower() in ways):
            return page.click(box)
    return page.submit("Save")


def report_damage(page: Page) -> Decision:
    """Report order "1234" as damaged. What is wrong: Rust. Attach the file "photo.svg"."""
    order, reason, file = page.read(r'order "(.*)" as damaged. What is wrong: (.*)\. Attach the file "(.*)"').groups()
    number = page.maybe("Order number", "textbox")
    if number is None:
        return page.click(page.named("Returns", "link"))
    proof, chosen = page.named("Receipt or photo", "file"), page.named("What is wrong", "combobox")
    filled = page.fill_all([(number, order)])
    if filled:
        return filled
    if chosen.value != reason:
        return page.select(chosen, reason)
    if proof.value != file:
        assert proof.ref is not None
        return proof.label, UploadFile(ref=proof.ref, file=(file,))
    return page.submit("Send claim")
