"""What `playwright codegen --target python` writes for the shop's settings, seed 3. Read by tests, never run."""

import re

from playwright.sync_api import Playwright, expect, sync_playwright


def run(playwright: Playwright) -> None:
    browser = playwright.chromium.launch(headless=False)
    context = browser.new_context()
    page = context.new_page()
    page.goto("http://127.0.0.1:9999/settings")
    page.get_by_role("listitem").filter(has_text="New arrivals").get_by_role("button").click()
    page.get_by_label("How often").select_option("Daily")
    page.get_by_label("By email").uncheck()
    page.get_by_role("checkbox", name=re.compile(r"^by phone$", re.IGNORECASE)).check()
    expect(page.locator("dialog")).to_contain_text("Daily")
    page.get_by_role("button", name="Save").click()

    # ---------------------
    context.close()
    browser.close()


with sync_playwright() as playwright:
    run(playwright)
